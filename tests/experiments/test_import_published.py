"""A clone of the paper's repository in our files: tensor by tensor what it holds, and one line for what is no clone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from running import REPOSITORY, assert_says, command
from safetensors.torch import load_file

from experiments.import_published import main
from experiments.published.graphs import PublishedGraph, our_layer
from experiments.published.results import labels_of, node_experiment

SHARED = REPOSITORY.parent / "shared" / "reference"
CLONE, CONVERTED = SHARED / "published_clone", SHARED / "modular_addition"
needs_clone = pytest.mark.skipif(not CLONE.is_dir(), reason=f"no clone at {CLONE}")
LAYERS = ("blocks.0.hook_resid_pre", "blocks.0.hook_resid_mid", "blocks.0.hook_resid_post", "output")


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("published")
    main([str(CLONE), "--out", str(out)])
    return out / "modular_addition"


def graph(**changes: object) -> dict[str, object]:
    """As much of a graph as is read."""
    content: dict[str, object] = {
        "exp_name": "toy_rib_seed3",
        "config": {
            "node_layers": ["layers.0", "output"],
            "dataset": {"dataset_type": "toy"},
            "basis_formula": "jacobian",
            "seed": 0,
            "mlp_path": "weights.pt",
        },
        "ml_model_config": {},
        "mean_vectors": {"layers.0": torch.zeros(3)},
        "gram_matrices": {"layers.0": torch.eye(3)},
        "interaction_rotations": [
            {"node_layer": "layers.0", "C": torch.ones(3, 2), "C_pinv": torch.ones(2, 3), "Lambda": torch.ones(3)},
            {"node_layer": "output", "C": None, "C_pinv": None, "Lambda": None},
        ],
        "edges": [{"in_node_layer": "layers.0", "E_hat": torch.ones(4, 2)}],
    }
    return content | changes


@needs_clone
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("method", ["lib", "pca"])
def test_it_is_what_was_converted_by_hand(imported: Path, seed: int, method: str) -> None:
    found, expected = (load_file(base / f"seed{seed}" / f"{method}.safetensors") for base in (imported, CONVERTED))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    ablations, by_hand = (
        json.loads((base / f"seed{seed}" / f"{method}_ablations.json").read_text()) for base in (imported, CONVERTED)
    )
    for key in ("test_score", "node_ablation", "edge_ablation", "edges_needed"):
        assert ablations[key] == by_hand[key]


@needs_clone
def test_the_weights_are_the_published_ones(imported: Path) -> None:
    weights = load_file(imported / "seed1" / "checkpoint.safetensors")
    published = torch.load(CONVERTED / "seed1" / "checkpoint.pt", weights_only=True, map_location="cpu")
    assert all(torch.equal(weights[name], weight) for name, weight in published.items())


@needs_clone
def test_labels_have_terms_with_their_shares(imported: Path) -> None:
    labels = json.loads((imported / "seed0" / "lib_labels.json").read_text())
    assert tuple(labels) == LAYERS
    graph_of = load_file(imported / "seed0" / "lib.safetensors")
    for layer in LAYERS[:3]:
        assert labels[layer][0] == [{"share": 1.0, "term": "const"}]
        assert len(labels[layer]) == min(50, graph_of[f"to_basis/{layer}"].shape[1])
    assert labels[LAYERS[0]][1][:2] == [
        {"share": 0.51, "term": "cos(15x) + cos(15y)"},
        {"share": 0.34, "term": "cos(18x) + cos(18y)"},
    ]
    assert labels["output"][3] == [{"share": 1.0, "term": "output_3"}]


@needs_clone
def test_the_command_writes_where_it_is_told(tmp_path: Path) -> None:
    done = command(tmp_path, str(CLONE), "--out", "here", program=("-m", "experiments.import_published"))
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 4
    assert (tmp_path / "here/modular_addition/seed0/lib.safetensors").is_file()


def test_names_of_node_layers_and_experiments() -> None:
    model = {"n_layers": 6}
    assert our_layer("ln1.3", model) == "blocks.3.hook_resid_pre"
    assert our_layer("ln2.0", model) == "blocks.0.hook_resid_mid"
    assert our_layer("unembed", model) == "blocks.5.hook_resid_post"
    assert [our_layer(name, model) for name in ("layers.1", "output")] == ["layers.1", "output"]
    assert node_experiment("modular_arithmetic_rib_seed2") == "modular_arithmetic_node_rib_seed2"


def test_another_model_keeps_its_names(tmp_path: Path) -> None:
    """And weights are found wherever the author had them."""
    clone = tmp_path / "clone"
    (clone / "deep").mkdir(parents=True)
    config = {**graph()["config"], "mlp_path": "/home/author/clone/deep/weights.pt"}  # pyright: ignore
    torch.save(graph(config=config), clone / "deep" / "toy_rib_seed3_rib_graph.pt")
    torch.save({"layers.0.W": torch.ones(2, 3)}, clone / "deep" / "weights.pt")
    main([str(clone), "--out", str(tmp_path / "out")])
    folder = tmp_path / "out" / "toy" / "seed3"
    assert {path.name for path in folder.iterdir()} == {"lib.safetensors", "checkpoint.safetensors"}
    assert load_file(folder / "lib.safetensors").keys() == {
        *(f"{kind}/layers.0" for kind in ("mean", "gram", "to_basis", "from_basis", "importance", "edges"))
    }


def test_labels_that_there_are_not(tmp_path: Path) -> None:
    assert labels_of(tmp_path / "none.csv", LAYERS) is None


class Evil:
    def __reduce__(self):
        return (print, ("carried out",))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"a": 1}, ("config",)),
        ([1, 2], ("expected a published graph",)),
        (graph(edges=[{}]), ("in_node_layer",)),
        (graph(config={"node_layers": 3}), ("expected a published graph",)),
        (Evil(), ("not readable without running code in it",)),
    ],
)
def test_files_that_are_no_graphs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: object, expected: tuple[str, ...]
) -> None:
    torch.save(content, tmp_path / "x_rib_graph.pt")
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path), "--out", str(tmp_path / "out")])
    out, err = capsys.readouterr()
    assert (ended.value.code, out) == (2, "")
    (line,) = err.splitlines()
    assert_says(line, "x_rib_graph.pt", *expected)
    assert not (tmp_path / "out").exists()


def test_folders_that_are_no_clones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(SystemExit) as ended:
            main([str(folder)])
        assert ended.value.code == 2
        assert_says(capsys.readouterr().err, str(folder), "expected a clone of the paper's public repository")


def test_ablations_that_are_something_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(graph(), tmp_path / "toy_rib_seed3_rib_graph.pt")
    (tmp_path / "toy_rib_seed3_edge_ablation_results.json").write_text('{"results": []}')
    with pytest.raises(SystemExit):
        main([str(tmp_path), "--out", str(tmp_path / "out")])
    assert_says(capsys.readouterr().err, "toy_rib_seed3_edge_ablation_results.json", "expected a published ablation")


def test_a_graph_is_told_by_its_formula() -> None:
    config = {**graph()["config"], "basis_formula": "svd"}  # pyright: ignore
    assert PublishedGraph.of(graph(config=config)).method == "pca"
    config = {**config, "basis_formula": "(1-alpha)^2"}
    assert PublishedGraph.of(graph(config=config)).method == "1-alpha_2"
