"""Modular addition, trained by the pipeline where nobody gives a checkpoint, and a pretrained decoder."""

from __future__ import annotations

from experiments.benchmarks.cases import Case, Slices
from experiments.benchmarks.sizes import Sizes
from experiments.benchmarks.sources import Sources
from experiments.config.model_checks import resolve_device
from experiments.config.scores import TOLERANCES
from experiments.config.settings import fit_settings
from experiments.pipeline.cache import StageCache
from experiments.pipeline.model_stage import model_file, model_stage

DECODER_LAYERS = (4, 5)
"""Node layers in the middle of the decoder, one before attention and one before an MLP: what the straightforward way is
timed on, and what is ablated; all would take an hour."""


def modular_addition(sources: Sources, sizes: Sizes) -> Case:
    """The transformer that adds modulo p, of the published size; trained in the first benchmark, then found again."""
    config = sources.config("modular_addition", *sizes.modular_overrides)
    room, device = sources.room(config), resolve_device(config.device)
    stage = model_stage(StageCache(config.cache_directory, device), room)
    model = room.analysed(model_file(stage), device)
    n_fit, n_test, fit, ablation = sizes.addition
    return Case(
        name="modular addition",
        described=f"p = {room.model.modulus}, weights "
        + ("of a checkpoint" if config.model.checkpoint else "trained by the pipeline"),
        chain=model.chain,
        inputs=model.fit_inputs(n_fit),
        test=model.test.first(n_test),
        tolerances=tuple(TOLERANCES[room.score_name]),
        settings=fit_settings(config),
        slices=Slices(fit, ablation),
        ablated=tuple(range(len(room.node_layers) - 1)),
    )


def pretrained_decoder(sources: Sources, sizes: Sizes) -> Case:
    """The decoder of `--stories`, on the text of `--text`."""
    assert sources.stories is not None
    n_fit, n_test, fit, ablation = sizes.decoder
    given = () if sources.text is None else (f"data.path={sources.text}",)
    config = sources.config(
        "pretrained_transformer",
        f"model.name={sources.stories}",
        f"model.sequence_length={sizes.sequence}",
        f"model.n_train_sequences={n_fit}",
        f"model.n_test_sequences={n_test}",
        *given,
    )
    room, device = sources.room(config), resolve_device(config.device)
    room.check()
    stage = model_stage(StageCache(config.cache_directory, device), room)
    model = room.analysed(model_file(stage), device)
    layers = tuple(index for index in DECODER_LAYERS if index < len(room.node_layers) - 1) or (0, 1)
    return Case(
        name=f"decoder {sources.stories.rstrip('/').rpartition('/')[2]}",
        described=f"pretrained weights, text, {sizes.sequence} tokens a sequence",
        chain=model.chain,
        inputs=model.fit_inputs(n_fit),
        test=model.test.first(n_test),
        tolerances=tuple(TOLERANCES[room.score_name]),
        settings=fit_settings(config),
        slices=Slices(fit, ablation, layers, sizes.compared_tokens),
        ablated=layers,
    )
