"""Training the small transformer: it learns, is the same by seed, goes on where it was, and is the chain's model."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from models.small_transformer.network import Sizes, initial_model
from models.small_transformer.training import TrainingSettings, batches, cross_entropy, train
from models.transformer.bridge import convert
from models.transformer.chain import chain_of
from models.transformer.text import Cut, TextData, split_text
from models.transformer.vocabulary import encode_characters

CPU = torch.device("cpu")
SETTINGS = TrainingSettings(
    steps=24,
    batch_size=8,
    learning_rate=0.02,
    warmup_share=0.25,
    betas=(0.9, 0.98),
    weight_decay=0.1,
    evaluate_every=6,
    target_cross_entropy=1.0,
)


class Interrupted(Exception):
    pass


@pytest.fixture(scope="module")
def text() -> TextData:
    counted = " ".join(str(number % 7) * 3 for number in range(400))
    return split_text(encode_characters(counted), Cut(sequence_length=12, test_share=0.2, split_seed=0))


@pytest.fixture(scope="module")
def sizes(text) -> Sizes:
    return Sizes(n_layers=1, d_model=12, n_heads=2, d_head=4, d_mlp=16, d_vocab=len(text.vocabulary), n_context=12)


def test_training_learns_and_is_the_same_by_seed(text, sizes, tmp_path):
    histories = [
        train(initial_model(sizes, seed, CPU), SETTINGS, text.train, text.test, seed, tmp_path / f"{n}.safetensors")
        for n, seed in enumerate((3, 3, 4))
    ]
    assert [entry.step for entry in histories[0]] == [6, 12, 18, 24]
    assert histories[0][-1].score < 0.8 * histories[0][0].score
    assert histories[0] == histories[1]
    assert histories[0] != histories[2]


def test_an_interrupted_training_ends_as_if_it_had_not_been(text, sizes, tmp_path):
    whole, interrupted, resumed = (initial_model(sizes, 0, CPU) for _ in range(3))
    expected = train(whole, SETTINGS, text.train, text.test, 0, tmp_path / "whole.safetensors")
    state, seen = tmp_path / "state.safetensors", []

    def interrupt(step, evaluation):
        if step == 15:
            raise Interrupted

    with pytest.raises(Interrupted):
        train(interrupted, SETTINGS, text.train, text.test, 0, state, interrupt)
    history = train(resumed, SETTINGS, text.train, text.test, 0, state, lambda step, _: seen.append(step))
    assert seen == list(range(13, 25))
    assert history == expected
    for name, parameter in whole.named_parameters():
        assert torch.equal(parameter, resumed.get_parameter(name)), name


@pytest.mark.parametrize("content", [b"", b"not a checkpoint"])
def test_a_damaged_state_is_not_trusted(text, sizes, tmp_path, content):
    (tmp_path / "state.safetensors").write_bytes(content)
    settings = replace(SETTINGS, steps=2)
    history = train(initial_model(sizes, 0, CPU), settings, text.train, text.test, 0, tmp_path / "state.safetensors")
    assert [entry.step for entry in history] == [2]


def test_every_pass_takes_each_example_once_and_goes_on_from_any_batch():
    taken = batches(n_examples=10, batch_size=3, seed=5, n_done=0)
    first = [next(taken) for _ in range(9)]
    for number in range(3):
        in_pass = torch.cat(first[3 * number : 3 * number + 3])
        assert len(in_pass.unique()) == len(in_pass) == 9
    assert not torch.equal(torch.stack(first[:3]), torch.stack(first[3:6]))
    later = batches(n_examples=10, batch_size=3, seed=5, n_done=4)
    assert all(torch.equal(next(later), batch) for batch in first[4:])


def test_fewer_examples_than_a_batch():
    taken = batches(n_examples=2, batch_size=3, seed=0, n_done=0)
    assert [sorted(next(taken).tolist()) for _ in range(3)] == [[0, 1]] * 3


def test_learning_rate_goes_up_and_down_to_zero():
    rates = [SETTINGS.learning_rate_at(progress) for progress in (0.0, 0.125, 0.25, 0.625, 1.0)]
    assert rates == pytest.approx([0.0, 0.01, 0.02, 0.01, 0.0])


def test_the_architecture_is_known_without_building_the_model_and_the_chain_computes_it(text, sizes):
    model = initial_model(sizes, 0, CPU)
    architecture, weights = convert(model)
    assert architecture == sizes.architecture()
    chain = chain_of(architecture, weights, torch.float32, CPU)
    with torch.no_grad():
        logits = chain.output_from(chain.activation(text.test, 0), 0)
        expected = model(text.test)
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)
    by_hand = functional.cross_entropy(expected[:, :-1].flatten(0, 1).double(), text.test[:, 1:].flatten())
    assert cross_entropy(model, text.test) == pytest.approx(by_hand.item(), abs=1e-6)
