"""The functions between adjacent node layers, each with what it knows about itself."""

from libcore.sections.affine import AffineSection
from libcore.sections.attention import AttentionSection
from libcore.sections.attention_branch import AttentionBranch
from libcore.sections.base import (
    ClosedForm,
    FastMaskedEvaluation,
    FunctionSection,
    LinearFirst,
    MaskedEvaluation,
    Section,
)
from libcore.sections.block import BlockSection
from libcore.sections.branch import Branch
from libcore.sections.composed import ComposedSection, compose
from libcore.sections.convolution import ConvolutionSection, MaxPoolingSection
from libcore.sections.hidden import Elementwise, Gated, Linear
from libcore.sections.normalisation import Normalisation
from libcore.sections.positionwise_branch import PositionwiseBranch, RescaleBranch, ScaleBranch
from libcore.sections.residual_convolution import ResidualConvolutionSection
from libcore.sections.residual_elementwise import ResidualElementwiseSection
from libcore.sections.rotary import Rotary

__all__ = [
    "AffineSection",
    "AttentionBranch",
    "AttentionSection",
    "BlockSection",
    "Branch",
    "ClosedForm",
    "ComposedSection",
    "ConvolutionSection",
    "Elementwise",
    "FastMaskedEvaluation",
    "FunctionSection",
    "Gated",
    "Linear",
    "LinearFirst",
    "MaskedEvaluation",
    "MaxPoolingSection",
    "Normalisation",
    "PositionwiseBranch",
    "RescaleBranch",
    "ResidualConvolutionSection",
    "ResidualElementwiseSection",
    "Rotary",
    "ScaleBranch",
    "Section",
    "compose",
]
