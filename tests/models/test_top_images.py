"""Labels and pictures of features, against a search through all examples one feature at a time."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from libcore.basis import Basis, identity_basis
from libcore.chain import Chain
from libcore.sections import AffineSection, FunctionSection
from models.analysed import QUANTILES
from models.quantile_examples import rows_at_quantiles
from models.top_examples import Extremes, top_examples
from models.vision import top_images
from models.vision.top_images import PicturedFeatures, class_labels, position_box

HEIGHT, WIDTH, N = 4, 6, 30
NAMES = ("ship", "frog", "truck")
AMPLE = 2**24


def random_images(generator: torch.Generator, channels: int = 3, n: int = N) -> Tensor:
    return torch.randint(0, 256, (n, channels, HEIGHT, WIDTH), generator=generator, dtype=torch.uint8)


def random_basis(generator: torch.Generator, d: int, k: int) -> Basis:
    """Feature 0 is the constant."""
    matrix = torch.randn(d, k, generator=generator, dtype=torch.float64)
    matrix[:, 0] = torch.eye(d, dtype=torch.float64)[-1]
    return Basis(matrix, torch.linalg.pinv(matrix), torch.ones(k, dtype=torch.float64), has_constant=True)


def flat_chain(generator: torch.Generator, channels: int = 3, dtype: torch.dtype = torch.float64) -> Chain:
    """The flattened image, then three logits."""
    d = channels * HEIGHT * WIDTH
    weight = torch.randn(d + 1, 3, generator=generator, dtype=torch.float64).to(dtype)

    def head(images: Tensor) -> Tensor:
        return functional.pad(images.flatten(1).to(dtype) / 255, (0, 1), value=1.0)[:, None]

    return Chain(("layers.0", "output"), (AffineSection(weight),), head, last_has_constant=False)


def pixel_chain(generator: torch.Generator) -> Chain:
    """Pixels, then blocks of two by two of them in five channels, then three logits."""
    mixed = torch.randn(12, 5, generator=generator, dtype=torch.float64)
    readout = torch.randn(6, 3, generator=generator, dtype=torch.float64)

    def head(images: Tensor) -> Tensor:
        return functional.pad(images.flatten(2).transpose(1, 2).double() / 255, (0, 1), value=1.0)

    def blocks(activation: Tensor) -> Tensor:
        image = activation[..., :-1].transpose(1, 2).unflatten(2, (HEIGHT, WIDTH))
        patches = functional.unfold(image, 2, stride=2).transpose(1, 2)
        return functional.pad(torch.tanh(patches @ mixed), (0, 1), value=1.0)

    readout_section = FunctionSection(lambda activation: activation.sum(1, keepdim=True) @ readout)
    return Chain(
        ("layers.0", "layers.1", "output"), (FunctionSection(blocks), readout_section), head, last_has_constant=False
    )


PIXEL_GRIDS = {"layers.0": (HEIGHT, WIDTH), "layers.1": (HEIGHT // 2, WIDTH // 2), "output": (1, 1)}


def flat_case(generator: torch.Generator, channels: int = 3) -> tuple[PicturedFeatures, Chain, dict[str, Basis]]:
    chain = flat_chain(generator, channels)
    bases = {"layers.0": random_basis(generator, channels * HEIGHT * WIDTH + 1, 7)}
    bases["output"] = identity_basis(torch.ones(3, dtype=torch.float64), has_constant=False)
    labels = torch.randint(0, 3, (N,), generator=generator)
    images = random_images(generator, channels)
    return PicturedFeatures(images, labels, NAMES, {"layers.0": (1, 1), "output": (1, 1)}), chain, bases


def pixel_case(generator: torch.Generator) -> tuple[PicturedFeatures, Chain, dict[str, Basis]]:
    bases = {"layers.0": random_basis(generator, 4, 4), "layers.1": random_basis(generator, 6, 5)}
    bases["output"] = identity_basis(torch.ones(3, dtype=torch.float64), has_constant=False)
    labels = torch.randint(0, 3, (N,), generator=generator)
    return PicturedFeatures(random_images(generator), labels, NAMES, PIXEL_GRIDS), pixel_chain(generator), bases


def one_at_a_time(features: Tensor, feature: int, n: int, sign: int) -> list[tuple[int, int, float]]:
    """Example, position and value of a feature's `n` most extreme examples."""
    found = []
    for example in range(len(features)):
        values = features[example, :, feature].tolist()
        position = max(range(len(values)), key=lambda index: sign * values[index])
        found.append((example, position, values[position]))
    return sorted(found, key=lambda entry: -sign * entry[2])[:n]


def assert_extremes(found: Extremes, features: Tensor, n: int, sign: int, first_feature: int) -> None:
    for feature in range(first_feature, features.shape[2]):
        examples, positions, values = zip(*one_at_a_time(features, feature, n, sign), strict=True)
        assert found.examples[feature].tolist() == list(examples)
        assert found.positions[feature].tolist() == list(positions)
        assert found.values[feature].tolist() == pytest.approx(list(values), rel=1e-6)


@pytest.mark.parametrize("memory_budget", [1, 40_000, AMPLE])
@pytest.mark.parametrize("case", [flat_case, pixel_case])
def test_finds_what_a_full_search_finds_whatever_the_memory_budget(case, memory_budget, generator):
    images, chain, bases = case(generator)
    found = top_examples(chain, bases, images.images, 8, memory_budget)
    for index, layer in enumerate(chain.node_layers):
        features = bases[layer].features(chain.activation(images.images, index))
        first = int(bases[layer].has_constant)
        assert_extremes(found[layer].highest, features, 8, +1, first)
        assert_extremes(found[layer].lowest, features, 8, -1, first)


def test_the_memory_budget_bounds_the_chunks(generator):
    images, chain, bases = pixel_case(generator)
    sizes = []

    def head(inputs: Tensor) -> Tensor:
        sizes.append(len(inputs))
        return chain.embed(inputs)

    watched = replace(chain, embed=head)
    top_examples(watched, bases, images.images, 8, 40_000)
    # At least an activation and its features, in float64.
    assert 1 < max(sizes) <= 40_000 // (8 * HEIGHT * WIDTH * (4 + 4))


def test_computes_in_the_dtype_of_the_chain(generator):
    images, _, bases = flat_case(generator)
    single = flat_chain(generator, dtype=torch.float32)
    assert set(images.label_features(single, bases)) == {"layers.0", "output"}


def test_fewer_images_than_pictured_are_all_shown(generator):
    _, chain, bases = flat_case(generator)
    few = PicturedFeatures(
        random_images(generator, n=5), torch.arange(5) % 3, NAMES, {"layers.0": (1, 1), "output": (1, 1)}
    )
    picture = few.picture_features(chain, bases)["layers.0"][1]
    assert len(picture.highest) == len(picture.lowest) == 5
    assert [example.value for example in picture.highest] == [example.value for example in reversed(picture.lowest)]
    assert few.label_features(chain, bases)["layers.0"][1].endswith("/5")


def test_only_the_first_images_are_searched(generator, monkeypatch):
    monkeypatch.setattr(top_images, "PICTURED_EXAMPLES", 12)
    images, chain, bases = flat_case(generator)
    assert all(int(top.highest.examples.max()) < 12 for top in images.top_examples(chain, bases).values())


class TestLabels:
    def test_the_commonest_class_of_the_highest_images_and_how_common_it_is(self):
        basis = Basis(torch.randn(4, 3), torch.randn(3, 4), torch.ones(3), has_constant=False)
        classes = torch.tensor([[2, 0, 0, 1, 0, 2], [1, 1, 1, 1, 1, 1], [0, 2, 1, 2, 1, 0]])
        assert class_labels(classes, NAMES, basis, is_last=False) == ["ship 3/6", "frog 6/6", "ship 2/6"]

    def test_of_equally_common_classes_the_highest_image_s_is_named(self):
        basis = Basis(torch.randn(4, 2), torch.randn(2, 4), torch.ones(2), has_constant=False)
        classes = torch.tensor([[0, 2, 1, 2, 1], [1, 0, 2, 0, 2]])
        assert class_labels(classes, NAMES, basis, is_last=False) == ["truck 2/5", "ship 2/5"]

    def test_the_constant_is_called_so_and_logits_bear_their_class(self, generator):
        images, chain, bases = flat_case(generator)
        labels = images.label_features(chain, bases)
        assert labels["layers.0"][0] == "constant"
        assert len(labels["layers.0"]) == 7
        assert "constant" not in labels["layers.0"][1:]
        assert labels["output"] == list(NAMES)

    def test_logits_in_another_basis_are_labelled_by_their_images(self, generator):
        images, chain, bases = flat_case(generator)
        turned = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64)).Q
        bases["output"] = Basis(turned, turned.T, torch.ones(3, dtype=torch.float64), has_constant=False)
        assert all(label.endswith("/8") for label in images.label_features(chain, bases)["output"])

    def test_labels_count_the_classes_of_the_pictured_images(self, generator):
        images, chain, bases = pixel_case(generator)
        labels, pictures = images.label_features(chain, bases), images.picture_features(chain, bases)
        for label, picture in zip(labels["layers.1"][1:], pictures["layers.1"][1:], strict=True):
            captions = [example.caption for example in picture.highest]
            name, share = label.split()
            assert share == f"{captions.count(name)}/8"
            assert captions.count(name) == max(captions.count(other) for other in NAMES)


class TestPictures:
    def test_shows_the_image_with_its_class_its_activation_and_the_position(self, generator):
        images, chain, bases = pixel_case(generator)
        pictures = images.picture_features(chain, bases)
        features = bases["layers.1"].features(chain.activation(images.images, 1))
        for sign, end in ((1, "highest"), (-1, "lowest")):
            shown = getattr(pictures["layers.1"][3], end)
            expected = one_at_a_time(features, 3, 8, sign)
            for example, (index, position, value) in zip(shown, expected, strict=True):
                assert torch.equal(example.image, images.images[index].permute(1, 2, 0))
                assert example.caption == NAMES[int(images.labels[index])]
                assert example.value == pytest.approx(value, rel=1e-6)
                top, left = 2 * (position // (WIDTH // 2)), 2 * (position % (WIDTH // 2))
                assert example.box == (top, left, top + 2, left + 2)
        assert pictures["output"][0].highest[0].box is None

    def test_grey_images_get_three_equal_channels(self, generator):
        images, chain, bases = flat_case(generator, channels=1)
        example = images.picture_features(chain, bases)["layers.0"][1].highest[0]
        assert example.image.shape == (HEIGHT, WIDTH, 3)
        assert torch.equal(example.image, example.image[..., :1].expand(-1, -1, 3))

    def test_the_constant_has_a_place_but_no_examples(self, generator):
        images, chain, bases = flat_case(generator)
        pictures = images.picture_features(chain, bases)
        assert [len(picture.highest) for picture in pictures["layers.0"]] == [0] + 6 * [8]
        assert [len(picture.lowest) for picture in pictures["output"]] == 3 * [8]

    def test_only_the_first_features_are_pictured_and_all_are_labelled(self, generator, monkeypatch):
        monkeypatch.setattr(top_images, "PICTURED_FEATURES", 4)
        images, chain, bases = flat_case(generator)
        assert {layer: len(of_layer) for layer, of_layer in images.picture_features(chain, bases).items()} == {
            "layers.0": 4,
            "output": 3,
        }
        assert len(images.label_features(chain, bases)["layers.0"]) == 7

    def test_labels_and_pictures_share_one_search(self, generator, monkeypatch):
        images, chain, bases = flat_case(generator)
        searches = []
        monkeypatch.setattr(
            top_images, "top_examples", lambda *arguments: searches.append(1) or top_examples(*arguments)
        )
        images.label_features(chain, bases)
        images.picture_features(chain, dict(bases))
        assert len(searches) == 1
        other = bases | {"layers.0": random_basis(generator, 73, 7)}
        assert images.label_features(chain, other) != images.label_features(chain, bases)
        assert len(searches) == 3

    @pytest.mark.parametrize("grid", [(2, 3), (3, 4), (1, 5), (4, 1)])
    def test_boxes_cover_the_image_and_are_never_empty(self, grid):
        height, width = 7, 9
        covered = torch.zeros(height, width)
        for position in range(grid[0] * grid[1]):
            box = position_box(position, grid, height, width)
            assert box is not None
            top, left, bottom, right = box
            assert 0 <= top < bottom <= height
            assert 0 <= left < right <= width
            covered[top:bottom, left:right] += 1
        assert (covered >= 1).all()

    def test_boxes_of_a_dividing_grid_share_no_pixel(self):
        boxes = [position_box(position, (2, 3), HEIGHT, WIDTH) for position in range(6)]
        assert boxes[0] == (0, 0, 2, 2)
        assert boxes[5] == (2, 4, 4, 6)
        assert len({box[:2] for box in boxes if box}) == 6


class TestDirections:
    def test_at_a_flattened_image_the_feature_is_drawn_about_grey(self, generator):
        images, chain, bases = flat_case(generator)
        vector = torch.zeros(3, HEIGHT, WIDTH, dtype=torch.float64)
        vector[0, 1, 2], vector[2, 3, 5], vector[1, 0, 0] = -4.0, 2.0, 4.0
        bases["layers.0"].from_basis[2] = torch.cat([vector.flatten(), torch.tensor([100.0])])
        direction = images.picture_features(chain, bases)["layers.0"][2].direction
        assert direction is not None
        assert direction.shape == (HEIGHT, WIDTH, 3)
        assert direction[1, 2].tolist() == [0, 128, 128]
        assert direction[3, 5].tolist() == [128, 128, 192]
        assert direction[0, 0].tolist() == [128, 255, 128]
        assert direction[2, 2].tolist() == [128, 128, 128]

    def test_where_pixels_are_positions_the_feature_is_a_patch_of_its_colour(self, generator):
        images, chain, bases = pixel_case(generator)
        bases["layers.0"].from_basis[1] = torch.tensor([1.0, 0.0, -0.5, 7.0])
        direction = images.picture_features(chain, bases)["layers.0"][1].direction
        assert direction is not None
        assert direction.shape == (8, 8, 3)
        assert direction.flatten(0, 1).unique(dim=0).tolist() == [[255, 128, 64]]

    def test_later_layers_and_empty_features_have_none_or_grey(self, generator):
        images, chain, bases = flat_case(generator)
        bases["layers.0"].from_basis[1] = 0.0
        pictures = images.picture_features(chain, bases)
        assert all(picture.direction is None for picture in pictures["output"])
        empty = pictures["layers.0"][1].direction
        assert empty is not None
        assert (empty == 128).all()

    def test_a_chain_that_starts_after_the_image_has_none(self, generator):
        images, chain, bases = pixel_case(generator)
        pictures = images.picture_features(chain.restricted_to(("layers.1", "output")), bases)
        assert set(pictures) == {"layers.1", "output"}
        assert all(picture.direction is None for picture in pictures["layers.1"])


class TestRefusals:
    def test_a_grid_that_does_not_fit_or_is_missing(self, generator):
        images, chain, bases = pixel_case(generator)
        for grids, shown in ((PIXEL_GRIDS | {"layers.1": (3, 3)}, r"\(3, 3\)"), ({"layers.0": (4, 6)}, "None")):
            other = PicturedFeatures(images.images, images.labels, NAMES, grids)
            with pytest.raises(ValueError, match=rf"layers.1: grid {shown}; expected .* its 6 positions"):
                other.picture_features(chain, bases)

    def test_images_without_colour_and_labels_without_a_name(self, generator):
        images = random_images(generator)
        with pytest.raises(ValueError, match="2 channels; expected 1"):
            PicturedFeatures(images[:, :2], torch.zeros(N, dtype=torch.int64), NAMES, {})
        with pytest.raises(ValueError, match=r"labels from 3 to 3 for 3 class names"):
            PicturedFeatures(images, torch.full((N,), 3), NAMES, {})


def test_a_hidden_layer_is_not_drawn_though_it_has_as_many_coordinates_as_the_image(generator):
    images, chain, bases = flat_case(generator)
    renamed = PicturedFeatures(images.images, images.labels, NAMES, {"image": (1, 1), **images.grids})
    pictures = renamed.picture_features(chain, bases)
    assert all(picture.direction is None for picture in pictures["layers.0"])
    assert any(picture.direction is not None for picture in images.picture_features(chain, bases)["layers.0"])


def test_pictures_at_quantiles_and_of_the_first_images(generator: torch.Generator) -> None:
    images, chain, bases = pixel_case(generator)
    pictures = images.picture_features(chain, bases)
    for layer in ("layers.0", "layers.1"):
        features = bases[layer].features(chain.activation(images.images, chain.node_layers.index(layer)))
        highest = features.max(1).values
        for feature in range(1, highest.shape[1]):
            picture, values = pictures[layer][feature], highest[:, feature]
            assert [example.value for example in picture.common] == pytest.approx(values[:24].tolist(), rel=1e-5)
            assert all(
                torch.equal(example.image, image.movedim(0, -1))
                for example, image in zip(picture.common, images.images, strict=False)
            )
            for quantile, examples in zip(QUANTILES, picture.quantiles, strict=True):
                rank = round(quantile * (N - 1))
                expected = values.sort(descending=True).values[N - 1 - rank - 1 : N - 1 - rank + 3].tolist()
                assert [example.value for example in examples] == pytest.approx(expected, rel=1e-5)
        assert pictures[layer][0].common == () == pictures[layer][0].quantiles, "the constant is equal on all images"


def test_rows_at_quantiles_stay_within_the_rows() -> None:
    values = torch.tensor([[3.0], [1.0], [2.0]])
    assert rows_at_quantiles(values, (1.0, 0.0), 2).tolist() == [[[0, 2]], [[2, 1]]]
    assert rows_at_quantiles(values, (0.5,), 7).tolist() == [[[0, 2, 1]]]
