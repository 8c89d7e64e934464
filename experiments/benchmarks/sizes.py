"""How large the benchmark is: as it is reported, and small enough for a test."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """Numbers of examples are those fitted on, those ablated on, and those of the straightforward way for either.

    Attributes:
        modular_overrides: of the configuration of modular addition.
        addition, mlp, cnn, decoder: numbers of examples; None for all.
        hidden, channels: widths of the image networks.
        sequence, blocks, width, vocabulary: of the decoder; `compared_tokens` of each sequence are compared.
        images: data set whose shape the images have.
        scaling_unit: what the sizes of the scaling curves are multiples of.
        matrices: sizes that the rate of matrix products is measured at.
        memory_tokens: numbers of tokens that peak memory is measured at, ascending, whole sequences.
        memory_tokens_of_fit: the most that basis and edges are computed on, too, which take longer.
    """

    modular_overrides: tuple[str, ...]
    addition: tuple[int | None, int | None, int, int]
    mlp: tuple[int, int, int, int]
    hidden: tuple[int, ...]
    cnn: tuple[int, int, int, int]
    channels: tuple[int, ...]
    decoder: tuple[int, int, int, int]
    sequence: int
    compared_tokens: int
    blocks: int
    width: int
    vocabulary: int
    images: str
    scaling_unit: int
    matrices: tuple[int, ...]
    memory_tokens: tuple[int, ...]
    memory_tokens_of_fit: int


FULL = Sizes(
    modular_overrides=(),
    addition=(None, None, 957, 256),
    mlp=(10_000, 2_000, 100, 200),
    hidden=(50, 50),
    cnn=(128, 32, 2, 8),
    channels=(16, 32, 64),
    decoder=(32, 2, 1, 1),
    sequence=128,
    compared_tokens=32,
    blocks=5,
    width=64,
    vocabulary=512,
    images="cifar10",
    scaling_unit=64,
    matrices=(256, 512, 1024, 2048),
    memory_tokens=(2**14, 2**16, 2**18, 2**20),
    memory_tokens_of_fit=2**16,
)

QUICK = Sizes(
    modular_overrides=(
        "model.modulus=7",
        "model.d_model=16",
        "model.n_heads=2",
        "model.d_head=8",
        "model.d_mlp=32",
        "model.train_fraction=0.8",
        "model.training.learning_rate=0.03",
        "model.training.warmup_steps=5",
        "model.training.max_steps=60",
        "model.training.patience=1",
    ),
    addition=(None, None, 13, 5),
    mlp=(60, 20, 6, 10),
    hidden=(6, 5),
    cnn=(10, 6, 2, 3),
    channels=(3,),
    decoder=(4, 3, 2, 2),
    sequence=4,
    compared_tokens=3,
    blocks=1,
    width=16,
    vocabulary=11,
    images="digits",
    scaling_unit=4,
    matrices=(256, 512),
    memory_tokens=(16, 32, 64),
    memory_tokens_of_fit=32,
)
