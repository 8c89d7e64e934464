"""Methods by name, by entry point and by address; the options that they take and refuse."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from installed_packages import Folder, folder
from tiny_models import AMPLE, random_activation, random_chain
from torch import Generator

from libcore.basis import Basis, identity_basis
from libcore.fit_settings import FitSettings
from libcore.methods import ENTRY_POINTS, METHODS, Method, UnknownMethod, as_method, method, method_at
from libcore.statistics import chain_statistics

__all__ = ["folder"]

BY_PLACE = [
    "lib",
    "pca",
    "svd",
    "neuron",
    "random",
    "whitened_pca",
    "gradient_pca",
    "jacobian_svd",
    "ica",
    "varimax",
    "quartimax",
    "lib_to_output",
    "lib_integrated",
    "random_matched",
    "lib_sparse",
    "scaled_pca",
]
RANDOM = ("random", "random_matched")
BUILT_IN = sorted([*BY_PLACE, "file"])
REPOSITORY = Path(__file__).resolve().parents[2]
SOURCE = """
import torch

from libcore.basis import Basis
from libcore.methods import method


def refuse_odd(settings, *, width, turn=0.5):
    if width % 2:
        raise ValueError(f"method.width={width}: expected an even number")


def sorted_neurons(chain, inputs, statistics, settings, *, width=None, turn=0.5):
    eye = {layer: torch.eye(len(of.mean)).double() for layer, of in statistics.items()}
    return {layer: Basis(eye[layer], eye[layer], of.gram.diagonal(), chain.has_constant(layer))
            for layer, of in statistics.items()}


@method("mine", label="My own", sorts_by="size", seeded=True, place=7, check=refuse_odd)
def fit_mine(chain, inputs, statistics, settings, *, width, turn=0.5):
    return sorted_neurons(chain, inputs, statistics, settings)


number = 3


class Finder:
    def __call__(self, *arguments, **options):
        return sorted_neurons(*arguments)


finder = Finder()


def takes_two(chain, inputs):
    return {}
"""


def fitted(chosen: Method, generator: Generator, **options: object) -> dict[str, Basis]:
    chain, inputs = random_chain(generator), random_activation(generator, 6, 3, 4)
    return chosen(chain, inputs, chain_statistics(chain, inputs, AMPLE), FitSettings(), **options)


class TestNames:
    def test_each_module_of_the_folder_is_a_method_of_its_name(self):
        assert list(METHODS) == BUILT_IN
        assert len(METHODS) == len(BUILT_IN)
        for name in BUILT_IN:
            assert name in METHODS
            assert METHODS[name].name == name
            assert METHODS[name].label
            assert METHODS[name].sorts_by

    def test_their_order_among_methods(self):
        placed = [name for name in BUILT_IN if METHODS[name].place is not None]
        assert sorted(placed, key=lambda name: METHODS[name].place) == BY_PLACE

    def test_which_draw_random_numbers_and_which_integrate(self):
        assert [name for name in BUILT_IN if METHODS[name].seeded] == ["ica", "lib_sparse", *RANDOM]
        assert [name for name in BUILT_IN if METHODS[name].integrates()] == ["lib_integrated", "lib_sparse"]
        assert METHODS["lib"].integrates(jacobian="path")
        assert Method("any", lambda: {}, "any", "size").integrates()

    def test_modules_are_imported_when_their_method_is_asked_for(self):
        code = (
            "import sys; from libcore.methods import METHODS;"
            "loaded = lambda: sorted(n for n in sys.modules if n.startswith('libcore.methods.'));"
            "print(list(METHODS), 'lib' in METHODS, loaded()); METHODS['svd']; print(loaded())"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
        assert done.stdout.splitlines() == [f"{BUILT_IN} True []", "['libcore.methods.svd']"]

    @pytest.mark.parametrize(("name", "hint"), [("neurons", r" \(did you mean neuron\?\)"), ("zzz", "")])
    def test_a_name_that_there_is_not(self, name, hint):
        assert name not in METHODS
        expected = f"^{name}: no such method{hint}; expected one of {', '.join(BUILT_IN)}$"
        with pytest.raises(UnknownMethod, match=expected):
            METHODS[name]

    def test_a_module_of_the_folder_that_holds_no_method_of_its_name(self, monkeypatch):
        from libcore.methods import svd

        monkeypatch.delattr(svd, "fit_svd")
        with pytest.raises(UnknownMethod, match=r"libcore\.methods\.svd: 0 methods called 'svd'; expected one"):
            METHODS["svd"]


class TestEntryPoints:
    def test_an_installed_package_adds_a_method(self, folder: Folder, generator):
        folder.module("added.fits", SOURCE)
        folder.entry_points(ENTRY_POINTS, {"mine": "added.fits:fit_mine"})
        assert list(METHODS) == sorted([*BUILT_IN, "mine"])
        assert "mine" in METHODS
        assert len(METHODS) == len(BUILT_IN) + 1
        assert "added.fits" not in sys.modules
        mine = METHODS["mine"]
        assert (mine.name, mine.label, mine.sorts_by, mine.seeded, mine.place) == ("mine", "My own", "size", True, 7)
        assert list(fitted(mine, generator, width=2)) == ["before", "middle", "after", "output"]
        with pytest.raises(UnknownMethod, match=r"mime: no such method \(did you mean mine\?\)"):
            METHODS["mime"]

    def test_a_method_of_the_project_goes_before_an_added_one_of_its_name(self, folder: Folder):
        folder.module("added.fits", SOURCE)
        folder.entry_points(ENTRY_POINTS, {"lib": "added.fits:fit_mine"})
        assert METHODS["lib"].label == "LIB"
        assert list(METHODS) == BUILT_IN

    def test_an_undecorated_function_is_called_like_its_entry_point(self, folder: Folder):
        folder.module("added.fits", SOURCE)
        folder.entry_points(ENTRY_POINTS, {"plain": "added.fits:sorted_neurons"})
        assert (METHODS["plain"].name, METHODS["plain"].label) == ("plain", "plain")

    def test_an_entry_point_that_is_no_function(self, folder: Folder):
        folder.module("added.fits", SOURCE)
        folder.entry_points(ENTRY_POINTS, {"mine": "added.fits:number"})
        with pytest.raises(UnknownMethod, match="mine: int is no function; expected one that returns bases"):
            METHODS["mine"]

    @pytest.mark.parametrize(
        ("address", "reason"),
        [
            ("added.nothing:fit_mine", "ModuleNotFoundError: No module named 'added.nothing'"),
            ("added.fits:fit_mines", "AttributeError: module 'added.fits' has no attribute 'fit_mines'"),
        ],
    )
    def test_an_entry_point_to_nothing(self, folder: Folder, address, reason):
        folder.module("added.fits", SOURCE)
        folder.entry_points(ENTRY_POINTS, {"mine": address})
        with pytest.raises(UnknownMethod) as raised:
            METHODS["mine"]
        assert str(raised.value) == f"mine: {address} cannot be imported ({reason})"


class TestAddresses:
    def test_a_decorated_function_is_itself(self, folder: Folder):
        folder.module("own", SOURCE)
        assert method_at("own:fit_mine", "other").name == "mine"
        assert method_at("own:fit_mine", "other").label == "My own"

    @pytest.mark.parametrize("function", ["sorted_neurons", "finder"])
    def test_what_can_be_called_is_a_method_of_the_given_name(self, folder: Folder, generator, function):
        folder.module("own", SOURCE)
        found = method_at(f"own:{function}", "other")
        assert (found.name, found.label, found.sorts_by, found.place) == ("other", "other", "importance", None)
        for basis in fitted(found, generator).values():
            expected = identity_basis(basis.importance, basis.has_constant)
            assert torch.equal(basis.to_basis, expected.to_basis)

    @pytest.mark.parametrize(
        ("address", "expected"),
        [
            ("own", r"^own: expected package\.module:function$"),
            ("own:", "^own:: expected package"),
            (":fit_mine", "^:fit_mine: expected package"),
            (
                "nothing_there:fit",
                r"^nothing_there:fit: nothing_there cannot be imported \(ModuleNotFoundError: No mod",
            ),
            ("broken:fit", r"^broken:fit: broken cannot be imported \(ZeroDivisionError: division by zero\)$"),
            ("own:fit_mime", r"^own:fit_mime: own has no fit_mime \(did you mean fit_mine\?\)$"),
            ("own:zzz", "^own:zzz: own has no zzz$"),
            ("own:number", "^other: int is no function; expected one that returns bases$"),
            ("own:takes_two", r"^other: takes_two takes other arguments; expected \(chain, inputs, statistics, setti"),
        ],
    )
    def test_what_is_none(self, folder: Folder, address, expected):
        folder.module("own", SOURCE)
        folder.module("broken", "1 / 0\n")
        with pytest.raises(UnknownMethod, match=expected) as raised:
            method_at(address, "other")
        assert "\n" not in str(raised.value)

    def test_what_has_no_signature_that_python_could_tell(self):
        with pytest.raises(UnknownMethod, match=r"other: .* takes other arguments"):
            as_method(dict.fromkeys, "other")


class TestOptions:
    @pytest.fixture
    def mine(self, folder: Folder) -> Method:
        folder.module("own", SOURCE)
        return method_at("own:fit_mine", "mine")

    def test_are_the_function_s_keyword_arguments(self, mine: Method):
        assert list(mine.options) == ["width", "turn"]
        assert mine.options["turn"].default == 0.5
        assert list(METHODS["lib"].options) == ["jacobian"]
        assert METHODS["pca"].options == {}

    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            (
                {"width": 2, "turns": 1},
                r"^turns: method mine has no such option \(did you mean turn\?\); expected",
            ),
            ({"width": 2, "q": 1}, "^q: method mine has no such option; expected width, turn$"),
            ({"turn": 1}, "^width: method mine needs it; expected width=$"),
            ({"width": 3}, "^method.width=3: expected an even number$"),
        ],
    )
    def test_that_are_refused_before_anything_is_computed(self, mine: Method, generator, options, expected):
        with pytest.raises(ValueError, match=expected):
            mine.refuse(FitSettings(), options)
        with pytest.raises(ValueError, match=expected):
            fitted(mine, generator, **options)

    def test_of_a_method_that_has_none(self):
        with pytest.raises(ValueError, match=r"^jacobian: method pca has no such option; expected none$"):
            METHODS["pca"].refuse(FitSettings(), {"jacobian": "path"})

    def test_that_make_sense_are_handed_on(self, generator):
        seen: list[tuple[FitSettings, dict[str, object]]] = []

        @method("seeing", label="seeing", sorts_by="nothing")
        def fit_seeing(chain, inputs, statistics, settings, *, width: int = 1, turn: float = 0.0) -> dict[str, Basis]:
            seen.append((settings, {"width": width, "turn": turn}))
            return METHODS["pca"](chain, inputs, statistics, settings)

        assert list(fitted(fit_seeing, generator, turn=2.0)) == ["before", "middle", "after", "output"]
        assert seen == [(FitSettings(), {"width": 1, "turn": 2.0})]


class TestWhatIsReturned:
    """A method of somebody else's may return anything; what is no basis of every node layer is told in one line."""

    @pytest.mark.parametrize(
        ("returned", "expected"),
        [
            (lambda bases: None, "^method wrong: NoneType for before; expected a Basis of every node layer$"),
            (lambda bases: bases | {"middle": 3}, "^method wrong: int for middle; expected a Basis of every"),
            (lambda bases: {"before": bases["before"]}, "^method wrong: NoneType for middle; expected a Basis"),
            (
                lambda bases: bases | {"output": bases["before"]},
                r"^method wrong: output: to_basis \[4, 4\], from_basis \[4, 4\]; expected \[5, k\] and \[k, 5\]$",
            ),
        ],
    )
    def test_and_is_no_basis(self, generator, returned: Callable, expected: str):
        def fit_wrong(chain, inputs, statistics, settings):
            return returned(METHODS["pca"](chain, inputs, statistics, settings))

        with pytest.raises(ValueError, match=expected):
            fitted(as_method(fit_wrong, "wrong"), generator)
