"""The handwritten digits that scikit-learn brings along: 1,797 images of 8x8 grey values, nothing to fetch."""

from __future__ import annotations

import torch

from models.vision.image_set import ImageFormat, LabelledImages, Splits

LARGEST_VALUE = 16
SPLIT_SEED = 0


def read_digits(image_format: ImageFormat) -> Splits:
    """Grey values 0 … 16 stretched to 0 … 255; the first `n_train` of a seeded permutation are for training."""
    # Importing scikit-learn takes a second that no other data set needs to wait for.
    from sklearn.datasets import load_digits

    values, targets = load_digits(return_X_y=True)
    pixels = (torch.from_numpy(values) * 255 / LARGEST_VALUE).round().to(torch.uint8)
    images, labels = pixels.view(-1, *image_format.image_shape()), torch.from_numpy(targets).long()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(SPLIT_SEED))
    train, test = order[: image_format.n_train], order[image_format.n_train :]
    return LabelledImages(images[train], labels[train]), LabelledImages(images[test], labels[test])
