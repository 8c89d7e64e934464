"""Training image classifiers: it learns, an interrupted training ends as if it had not been, augmentation is right."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from models.cifar10_cnn.network import Cnn
from models.vision.images import FORMATS, LabelledImages, load_images
from models.vision.training import TrainingSettings, augmented, train

CPU = torch.device("cpu")
SETTINGS = TrainingSettings(
    epochs=4,
    batch_size=64,
    learning_rate=0.1,
    warmup_share=0.25,
    momentum=0.9,
    weight_decay=5e-4,
    label_smoothing=0.1,
    flip=False,
    crop=1,
)


class Interrupted(Exception):
    pass


def fresh_network() -> Cnn:
    torch.manual_seed(0)
    return Cnn(FORMATS["digits"], (8,), "average")


@pytest.fixture(scope="module")
def splits(tmp_path_factory) -> tuple[LabelledImages, LabelledImages]:
    dataset = load_images("digits", tmp_path_factory.mktemp("nowhere"))
    return dataset.train, dataset.test


def test_training_learns_and_is_the_same_by_seed(splits, tmp_path):
    networks = [fresh_network(), fresh_network(), fresh_network()]
    histories = [
        train(network, SETTINGS, *splits, seed, CPU, tmp_path / f"{index}.safetensors")
        for index, (network, seed) in enumerate(zip(networks, (3, 3, 4), strict=True))
    ]
    assert histories[0][-1].score > 0.7
    assert len(histories[0]) == 4
    assert histories[0][-1].step == 4 * histories[0][0].step
    assert histories[0] == histories[1]
    assert histories[0] != histories[2]


def test_an_interrupted_training_ends_as_if_it_had_not_been(splits, tmp_path):
    whole = fresh_network()
    expected = train(whole, SETTINGS, *splits, 0, CPU, tmp_path / "whole.safetensors")
    steps_per_epoch = len(splits[0]) // SETTINGS.batch_size
    seen: list[int] = []

    def interrupt(step, result):
        if step == 2 * steps_per_epoch + 3:
            raise Interrupted

    with pytest.raises(Interrupted):
        train(fresh_network(), SETTINGS, *splits, 0, CPU, tmp_path / "state.safetensors", interrupt)
    resumed = fresh_network()
    history = train(
        resumed, SETTINGS, *splits, 0, CPU, tmp_path / "state.safetensors", lambda step, result: seen.append(step)
    )
    assert seen[0] == 2 * steps_per_epoch + 1
    assert history == expected
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


@pytest.mark.parametrize("content", [b"", b"not a checkpoint"])
def test_a_damaged_state_is_not_trusted(splits, tmp_path, content):
    (tmp_path / "state.safetensors").write_bytes(content)
    settings = replace(SETTINGS, epochs=1)
    assert len(train(fresh_network(), settings, *splits, 0, CPU, tmp_path / "state.safetensors")) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["state.safetensors"]


def test_learning_rate_goes_up_and_down_to_zero():
    rates = [SETTINGS.learning_rate_at(progress) for progress in (0.0, 0.125, 0.25, 0.625, 1.0)]
    assert rates == pytest.approx([0.01, 0.055, 0.1, 0.05, 0.0])


def test_augmentation_mirrors_half_and_shifts_by_at_most_the_crop():
    image = torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8)
    images = image.expand(2000, -1, -1, -1)
    generator = torch.Generator().manual_seed(0)
    flipped = augmented(images, flip=True, crop=0, generator=generator)
    mirrored = (flipped == image.flip(3)).flatten(1).all(1)
    assert ((flipped == image).flatten(1).all(1) | mirrored).all()
    assert 0.45 < mirrored.float().mean() < 0.55
    shifted = augmented(images, flip=False, crop=2, generator=generator)
    centres = shifted[:, 0, 3, 4].long()
    assert {(int(c) // 8 - 3, int(c) % 8 - 4) for c in centres} == {(r, c) for r in range(-2, 3) for c in range(-2, 3)}
    # What comes in at the border is the image's own reflection.
    down = shifted[centres == 64 // 8 * 1 + 4][0, 0]
    assert torch.equal(down[2:], image[0, 0, :6])
    assert torch.equal(down[:2], image[0, 0, 1:3].flip(0))
