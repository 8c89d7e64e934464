"""Training: that it generalises, repeats itself, and stops where it says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from models.modular_addition import training
from models.modular_addition.data import Examples, all_pairs, split_pairs
from models.modular_addition.training import TrainingSettings, batches_of, differentiate, train
from models.modular_addition.transformer import Architecture, initial_weights, logits_from_pairs
from models.modular_addition.workers import Workers
from models.training_state import TrainingEvaluation

CPU = torch.device("cpu")
TINY = Architecture(modulus=7, d_model=16, n_heads=2, d_head=8, d_mlp=32)
SETTINGS = TrainingSettings(
    batch_size=None,
    learning_rate=3e-3,
    weight_decay=1.0,
    betas=(0.9, 0.98),
    warmup_steps=10,
    max_steps=60,
    evaluate_every=20,
    target_accuracy=1.0,
    patience=2,
)


def test_split_is_the_references() -> None:
    train_split, test_split = split_pairs(113, 0.3, 0)
    assert (len(train_split), len(test_split)) == (3830, 8939)
    everything = torch.cat([train_split.tokens, test_split.tokens])
    assert len(torch.unique(everything, dim=0)) == 113**2
    order = torch.randperm(113**2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(train_split.tokens, all_pairs(113).tokens[order[:3830]])


def test_labels_are_sums() -> None:
    pairs = all_pairs(5)
    assert pairs.tokens[7].tolist() == [1, 2, 5]
    assert torch.equal(pairs.labels, (pairs.tokens[:, 0] + pairs.tokens[:, 1]) % 5)


def test_equal_seeds_give_equal_weights() -> None:
    splits = split_pairs(7, 0.5, 0)
    one, same, other = (train(TINY, SETTINGS, *splits, seed, CPU) for seed in (0, 0, 1))
    for name, weight in one.weights.items():
        assert torch.equal(weight, same.weights[name])
    assert any(not torch.equal(weight, other.weights[name]) for name, weight in one.weights.items())
    assert [state.step for state in one.history] == [20, 40, 60]


def test_stops_after_patience_and_says_whether_it_met_its_criterion() -> None:
    splits = split_pairs(7, 0.5, 0)
    seen: list[TrainingEvaluation] = []
    easy = replace(SETTINGS, target_accuracy=1e-9)
    stopped = train(TINY, easy, *splits, 0, CPU, seen.append)
    reached = [state.score > 0 for state in stopped.history]
    assert stopped.reached_target
    assert reached[-2:] == [True, True]
    assert seen == stopped.history
    never = train(TINY, replace(SETTINGS, max_steps=20), *splits, 0, CPU)
    assert not never.reached_target


def test_it_generalises() -> None:
    """Modulus 31: the pairs held out are learnt too, which memorising would leave near 1/31."""
    architecture = Architecture(modulus=31, d_model=48, n_heads=4, d_head=12, d_mlp=192)
    settings = replace(SETTINGS, learning_rate=5e-3, max_steps=3000, evaluate_every=50, target_accuracy=0.9, patience=1)
    result = train(architecture, settings, *split_pairs(31, 0.7, 0), 0, CPU)
    assert result.reached_target, result.history[-1]


class TestBatches:
    def test_every_pass_takes_all_but_an_incomplete_batch_in_another_order(self) -> None:
        split = all_pairs(5)
        batches = list(islice(batches_of(split, 8, seed=0), 6))
        passes = [torch.cat([batch.tokens for batch in batches[start : start + 3]]) for start in (0, 3)]
        for seen in passes:
            assert len(seen) == len(torch.unique(seen, dim=0)) == 24
        assert not torch.equal(*passes)
        for batch in batches:
            assert torch.equal(batch.labels, (batch.tokens[:, 0] + batch.tokens[:, 1]) % 5)
        again, other = (next(batches_of(split, 8, seed)) for seed in (0, 1))
        assert torch.equal(again.tokens, batches[0].tokens)
        assert not torch.equal(other.tokens, batches[0].tokens)

    @pytest.mark.parametrize("batch_size", [None, 25, 26])
    def test_a_split_no_larger_than_a_batch_is_taken_whole(self, batch_size: int | None) -> None:
        split = all_pairs(5)
        assert all(batch is split for batch in islice(batches_of(split, batch_size, seed=0), 3))

    def test_the_loss_is_the_mean_since_the_evaluation_before(self) -> None:
        splits = split_pairs(7, 0.8, 0)
        settings = replace(SETTINGS, batch_size=10, max_steps=6, evaluate_every=3)
        coarse, fine = (train(TINY, replace(settings, evaluate_every=every), *splits, 0, CPU) for every in (3, 1))
        losses = torch.tensor([state.loss for state in fine.history], dtype=torch.float64)
        found = torch.tensor([state.loss for state in coarse.history], dtype=torch.float64)
        torch.testing.assert_close(found, losses.unflatten(0, (2, 3)).mean(1), rtol=1e-6, atol=0)


class ProductsOver(TorchDispatchMode):
    """Counts matrix products that a dimension of `size` takes part in, and all operations."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size, self.n_products, self.n_operations = size, 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.n_operations += 1
        if func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.bmm):
            sizes = {size for arg in args if isinstance(arg, Tensor) for size in arg.shape}
            self.n_products += self.size in sizes
        return func(*args, **(kwargs or {}))


class TestCost:
    def weights(self) -> dict[str, Tensor]:
        return dict(initial_weights(TINY, 0))

    def test_a_step_takes_three_products_over_the_examples_and_six_backwards(self) -> None:
        """No other operation is repeated for every example: there are as many for a split five times as large."""
        counted = []
        for n in (80, 400):
            split = all_pairs(7)
            chosen = torch.arange(n) % len(split)
            batch = Examples(split.tokens[chosen], split.labels[chosen])
            with Workers(CPU) as workers, ProductsOver(n) as counts:
                differentiate(self.weights(), batch, workers)
            assert counts.n_products == 9
            counted.append(counts.n_operations)
        assert counted[0] == counted[1]

    def test_the_test_split_is_passed_through_the_model_once_an_evaluation(self, monkeypatch) -> None:
        sizes: list[int] = []

        def counting(weights: Any, a: Tensor, b: Tensor) -> Tensor:
            sizes.append(len(a))
            return logits_from_pairs(weights, a, b)

        monkeypatch.setattr(training, "logits_from_pairs", counting)
        train(TINY, SETTINGS, *split_pairs(7, 0.5, 0), 0, CPU)
        assert sizes.count(24) == SETTINGS.max_steps
        assert sizes.count(25) == SETTINGS.max_steps // SETTINGS.evaluate_every
        assert len(sizes) == sizes.count(24) + sizes.count(25)


class TestWorkers:
    @pytest.fixture(autouse=True)
    def three_threads(self) -> Iterator[None]:
        before = torch.get_num_threads()
        torch.set_num_threads(3)
        yield
        torch.set_num_threads(before)

    @pytest.mark.parametrize(("at_least", "n_shares"), [(10, 3), (20, 2), (49, 1), (50, 1)])
    def test_shares_of_a_batch_have_its_loss_and_gradient(self, monkeypatch, at_least: int, n_shares: int) -> None:
        batch, weights = all_pairs(7), {name: weight.detach() for name, weight in initial_weights(TINY, 0).items()}
        weights = {name: weight.double().requires_grad_() for name, weight in weights.items()}
        expected = functional.cross_entropy(logits_from_pairs(weights, *batch.pairs()), batch.labels)
        gradients = torch.autograd.grad(expected, list(weights.values()))
        monkeypatch.setattr("models.modular_addition.workers.EXAMPLES_PER_SHARE", at_least)
        with Workers(CPU) as workers:
            loss = differentiate(weights, batch, workers)
            sizes = workers.map(len, batch)
        assert len(sizes) == n_shares
        assert sum(sizes) == len(batch)
        torch.testing.assert_close(loss, expected.detach(), rtol=1e-12, atol=0)
        for weight, gradient in zip(weights.values(), gradients, strict=True):
            torch.testing.assert_close(weight.grad, gradient, rtol=1e-10, atol=1e-15)

    def test_each_share_has_one_thread_and_all_are_given_back(self, monkeypatch) -> None:
        monkeypatch.setattr("models.modular_addition.workers.EXAMPLES_PER_SHARE", 1)
        with Workers(CPU) as workers:
            assert torch.get_num_threads() == 1
            threads = workers.map(lambda _: torch.get_num_threads(), all_pairs(5))
        assert threads == [1, 1, 1]
        assert torch.get_num_threads() == 3

    def test_threads_are_given_back_after_an_error(self) -> None:
        with pytest.raises(KeyError), Workers(CPU) as workers:
            differentiate({}, all_pairs(5), workers)
        assert torch.get_num_threads() == 3


@pytest.mark.slow
def test_the_papers_modulus_within_a_thousand_steps() -> None:
    """p = 113 with the default settings, seeds 0 to 2; as in docs/RESULTS.md."""
    architecture = Architecture(modulus=113, d_model=128, n_heads=4, d_head=32, d_mlp=512)
    settings = replace(
        SETTINGS,
        batch_size=512,
        learning_rate=0.01,
        max_steps=1000,
        evaluate_every=50,
        target_accuracy=0.9995,
        patience=3,
    )
    for seed in range(3):
        result = train(architecture, settings, *split_pairs(113, 0.3, 0), seed, CPU)
        assert result.reached_target, result.history[-1]
