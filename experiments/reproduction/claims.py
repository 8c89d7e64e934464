"""The paper's claims, as `conf/paper_claims.yaml` has them: what is claimed, its source, how ours is held against it.

Nothing heavy is imported: `--help` and a refused command read it too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from experiments.config.folder import CONFIG_DIRECTORY
from models.errors import UserError
from models.schema import NotNegative, Positive, Seed, Strict

CLAIMS = CONFIG_DIRECTORY / "paper_claims.yaml"
Text = Annotated[str, Field(min_length=1)]
Input = Literal["cifar", "stories", "text", "published"]
FigureName = Literal["importance_spectrum", "node_ablation", "edge_ablation", "interaction_graph", "communities"]
"""Of a sweep's report."""


class ByDirection(Strict):
    """One method's value is the smaller, or the larger, on the same models; the paper gives no number."""

    by: Literal["direction"]
    method: Text
    against: Text
    direction: Literal["smaller", "larger"]


class ByBand(Strict):
    """The ratio of two methods' values (of measures between fixed ends the difference) is within a band.

    Attributes:
        value: the paper's ratio or difference.
        tolerance: how far ours may be from it.
    """

    by: Literal["band"]
    method: Text
    against: Text
    value: float
    tolerance: Positive


class BySameWeights(Strict):
    """A method's values on the paper's own weights, which are numbers without an interval.

    Attributes:
        values: the paper's, by the seed of its network.
        relative_tolerance: how far ours may be from each, as a share of it.
    """

    by: Literal["same weights"]
    method: Text
    values: Annotated[dict[Seed, NotNegative], Field(min_length=1)]
    relative_tolerance: NotNegative


Compared = Annotated[ByDirection | ByBand | BySameWeights, Field(discriminator="by")]


class Claim(Strict):
    """One row of the document.

    Attributes:
        about: which models.
        claim: in words.
        source: where the paper or its repository says so, and what of it was computed.
        experiment: of `conf/experiment/`, whose runs are held against it.
        metrics: keys of `metrics.json`; the claim is about each of them.
    """

    about: Text
    claim: Text
    source: Text
    experiment: Text
    metrics: Annotated[list[Text], Field(min_length=1)]
    compared: Compared

    @model_validator(mode="after")
    def has_a_number_for_each_metric(self) -> Claim:
        """Values and tolerances are of one metric."""
        if not isinstance(self.compared, ByDirection) and len(self.metrics) > 1:
            raise ValueError(f"the claim {self.claim!r}: {self.compared.by} compares one metric")
        return self


class LeftOut(Strict):
    """A claim that `make paper` does not look at.

    Attributes:
        reason: why not.
        command: what is given to `python -m experiments.run` elsewhere.
    """

    about: Text
    claim: Text
    source: Text
    reason: Text
    command: Text


class PaperExperiment(Strict):
    """What an experiment needs of the user, and what of its report is shown."""

    needs: list[Input]
    figures: Annotated[list[FigureName], Field(min_length=1)]


class Claims(Strict):
    """The whole file; experiments are carried out in its order."""

    experiments: dict[str, PaperExperiment]
    claims: list[Claim]
    left_out: list[LeftOut]

    @model_validator(mode="after")
    def names_experiments_that_are_there(self) -> Claims:
        """Each claim's among those of the file, each of those in `conf/experiment/`."""
        for claim in self.claims:
            if claim.experiment not in self.experiments:
                raise ValueError(f"{claim.experiment}, of the claim {claim.claim!r}, is none of the file's experiments")
        for name in self.experiments:
            if not (CONFIG_DIRECTORY / "experiment" / f"{name}.yaml").is_file():
                raise ValueError(f"conf/experiment has no {name}.yaml")
        return self


def read_claims(path: Path = CLAIMS) -> Claims:
    """The claims of a file; raises UserError for one that is not as the schema has it."""
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Claims.model_validate(content)
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"{path}: {str(error).splitlines()[0]}; expected the paper's claims in YAML") from error
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(str(part) for part in problem["loc"])
        raise UserError(f"{path}: {place}: {problem['msg'].removeprefix('Value error, ')}") from error
