"""The ICA baseline: PCA's leading components rotated so that they are as independent as can be (FastICA)."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from libcore.basis import Basis
from libcore.chain import Chain
from libcore.fit_settings import FitSettings
from libcore.methods import method, never
from libcore.rotated_components import fit_rotated_components, refuse_share
from libcore.statistics import LayerStatistics
from libcore.streams import ActivationStream

MOST = 2**31 - 1
"""Steps, or activations that are looked at."""


def refuse_samples(settings: FitSettings, *, share: float, n_samples: int, max_iter: object) -> None:
    """FastICA needs several samples and steps."""
    refuse_share(settings, share=share)
    for name, value in (("n_samples", n_samples), ("max_iter", max_iter)):
        if not (isinstance(value, int) and 2 <= value <= MOST):
            raise ValueError(f"{name}={value}; expected a whole number from 2 to {MOST}")


@method(
    "ica",
    label="ICA",
    sorts_by="variance",
    place=8,
    seeded=True,
    check=refuse_samples,
    integrates=never,
    takes_jacobians=False,
)
def fit_ica(
    chain: Chain,
    inputs: Tensor,
    statistics: dict[str, LayerStatistics],
    settings: FitSettings,
    *,
    share: float = 0.99,
    n_samples: int = 20_000,
    max_iter: int = 500,
) -> dict[str, Basis]:
    """scikit-learn's FastICA on whitened components, parallel, with the log-cosh contrast, seeded by `settings.seed`.

    Args:
        share: of the variance, which the components that are rotated hold.
        n_samples: activations that it sees, at most; those of the first examples.
        max_iter: steps after which it ends, converged or not.
    """
    streams = chain.streams(inputs, settings.memory_budget)

    def rotation_of(index: int) -> partial[Tensor]:
        return partial(independent, streams[index], n_samples=n_samples, max_iter=max_iter, seed=settings.seed)

    return fit_rotated_components(chain, inputs, statistics, settings, share, rotation_of)


def independent(
    stream: ActivationStream,
    to_components: Float[Tensor, "d k"],
    from_components: Float[Tensor, "k d"],
    *,
    n_samples: int,
    max_iter: int,
    seed: int,
) -> Float[Tensor, "k k"]:
    """The rotation that FastICA ends with."""
    from sklearn.decomposition import FastICA
    from sklearn.exceptions import ConvergenceWarning

    n_positions = stream.example().shape[1]
    examples = stream.first(min(stream.n_examples, -(-n_samples // n_positions)))
    values = 2 * n_positions * sum(to_components.shape)
    samples = torch.cat([(chunk.double() @ to_components).flatten(0, 1) for chunk in examples.chunks(values)])
    # Not whitened again; the type that it declares for this lacks False.
    fast_ica = FastICA(whiten=cast(Any, False), max_iter=max_iter, random_state=seed)
    with warnings.catch_warnings():
        # An answer that has not converged is an orthogonal matrix all the same; how good it is the graph shows.
        warnings.simplefilter("ignore", ConvergenceWarning)
        fast_ica.fit(samples[:n_samples].cpu().numpy())
    return torch.from_numpy(fast_ica.components_.T.copy()).to(to_components)
