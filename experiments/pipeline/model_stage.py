"""The pipeline's first stage: a trained model, read from a checkpoint, or a control in its place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments.pipeline.cache import FinishedStage, StageCache
from experiments.pipeline.cache_entry import StageResult
from experiments.pipeline.console import Advance
from experiments.pipeline.resources import measured
from models.content_hashes import file_hash, stage_key
from models.randomized import shuffled
from models.room import Room
from models.training_state import TrainingEvaluation
from models.weights import ModelFile


def model_stage(
    cache: StageCache, room: Room[Any], on_evaluation: Callable[[TrainingEvaluation], None] = lambda evaluation: None
) -> FinishedStage:
    """The trained model, or its control: untrained weights, or the trained ones shuffled within each matrix.

    Its content is that of the weights: where they came from, and how training went, makes no other model.
    """
    stage = trained_or_control(cache, room, on_evaluation)
    return replace(stage, content=model_file(stage).hash)


def trained_or_control(
    cache: StageCache, room: Room[Any], on_evaluation: Callable[[TrainingEvaluation], None]
) -> FinishedStage:
    """The same as the cache has it."""
    randomize, seed = room.model.randomize, room.settings.seed
    if randomize == "weights":
        depends_on = {"model": room.depends_on, "source": room.source_hash(), "untrained": seed}
        key = stage_key(depends_on, (*room.shared_code, "models.randomized"))
        return cache.finish(
            "model", key, lambda _: stored(room.untrained(), control("untrained weights")), together=False
        )
    trained = trained_stage(cache, room, on_evaluation)
    if randomize != "shuffled":
        return trained
    record = trained.result.values | control(f"{trained.result.values['summary']}; then shuffled within each matrix")
    key = stage_key(
        {"model": trained.key, "weights": model_file(trained).hash, "shuffled": seed}, ("models.randomized",)
    )
    return cache.finish("model", key, lambda _: stored(shuffled(model_file(trained), seed), record), together=False)


def control(summary: str) -> dict[str, Any]:
    """What is recorded of a model that is not meant to have learned anything."""
    return {"summary": summary, "reached_target": True}


def trained_stage(
    cache: StageCache, room: Room[Any], on_evaluation: Callable[[TrainingEvaluation], None]
) -> FinishedStage:
    """Train, or load the checkpoint; weights by name. A training that was interrupted goes on where it can.

    `on_evaluation` is told of every evaluation while training goes on, of the last one several times, and when it has
    ended, or had ended before, of all of them.
    """
    depends_on: dict[str, Any] = {"model": room.depends_on, "source": room.source_hash()}
    if room.weights_source is not None:
        with measured(cache.device) as resources:
            found = room.train(cache.device, cache.directory, lambda *_: None)
        key = stage_key(depends_on, room.shared_code)
        return FinishedStage(stored(found.file, found.record), key, resources, reused=True, content=found.file.hash)
    if room.model.checkpoint is not None:
        path = Path(room.model.checkpoint)
        # Another file of the same name is another model; a file that is not there is refused when it is read.
        content = file_hash(path) if path.is_file() else None
        key = stage_key(depends_on | {"checkpoint": content}, room.shared_code)
        record = {"summary": f"from {path}", "reached_target": True}
        stage = cache.finish("model", key, lambda _: stored(room.read_checkpoint(), record), together=False)
        return replace(stage, result=replace(stage.result, values=record))  # by the path that this run was given
    if room.seeded:
        depends_on |= {"seed": room.settings.seed}
    key = stage_key(depends_on | {"device": cache.device.type}, room.shared_code)
    state = cache.directory / "model" / f"{key}.training.safetensors"

    def compute(advance: Advance) -> StageResult:
        def progress(done: int, total: int, last: TrainingEvaluation | None) -> None:
            if last is not None:
                on_evaluation(last)
            advance(done, total, "" if last is None else told(last, room.score_name))

        trained = room.train(cache.device, state, progress)
        return stored(trained.file, trained.record)

    stage = cache.finish("model", key, compute, together=False)
    for evaluation in stage.result.values.get("history", ()):
        on_evaluation(TrainingEvaluation(**evaluation))
    state.unlink(missing_ok=True)
    return stage


def told(evaluation: TrainingEvaluation, score_name: str) -> str:
    """`loss 0.12  test accuracy 0.9811`: what is shown beside the progress of a training."""
    return f"loss {evaluation.loss:.3g}  test {score_name} {evaluation.score:.4f}"


def stored(file: ModelFile, record: dict[str, Any]) -> StageResult:
    """A model as the stage's result."""
    return StageResult(file.tensors, record, file.header)


def model_file(stage: FinishedStage) -> ModelFile:
    """The model of the finished stage."""
    return ModelFile(stage.result.tensors, stage.result.header)
