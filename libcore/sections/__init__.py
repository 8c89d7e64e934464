"""The functions between adjacent node layers, each with what it knows about itself."""

from libcore.sections.affine import AffineSection
from libcore.sections.attention.branch import AttentionBranch
from libcore.sections.attention.differentiated import DifferentiatedAttention
from libcore.sections.attention.head_normalisation import HeadNormalisation
from libcore.sections.attention.heads import soft_capped
from libcore.sections.attention.normalised_output import NormalisedAttention
from libcore.sections.attention.rotary import Rotary
from libcore.sections.attention.section import AttentionSection
from libcore.sections.base import (
    ClosedForm,
    FactoredJacobian,
    FastMaskedEvaluation,
    FunctionSection,
    LinearFirst,
    LinearLast,
    MaskedEvaluation,
    Section,
)
from libcore.sections.block import BlockSection, ResidualBlock, residual_block
from libcore.sections.branch import AddedBranch, Branch
from libcore.sections.composed import ComposedSection, compose
from libcore.sections.convolution.convolution import ConvolutionSection, MaxPoolingSection
from libcore.sections.convolution.residual import ResidualConvolutionSection
from libcore.sections.normalisation import Normalisation
from libcore.sections.normalised_branch import NormalisedBranch
from libcore.sections.positionwise.branch import PositionwiseBranch, RescaleBranch, ScaleBranch
from libcore.sections.positionwise.hidden import Elementwise, Gated, Linear
from libcore.sections.positionwise.normalised_output import NormalisedPositionwise
from libcore.sections.positionwise.residual_elementwise import ResidualElementwiseSection

__all__ = [
    "AddedBranch",
    "AffineSection",
    "AttentionBranch",
    "AttentionSection",
    "BlockSection",
    "Branch",
    "ClosedForm",
    "ComposedSection",
    "ConvolutionSection",
    "DifferentiatedAttention",
    "Elementwise",
    "FactoredJacobian",
    "FastMaskedEvaluation",
    "FunctionSection",
    "Gated",
    "HeadNormalisation",
    "Linear",
    "LinearFirst",
    "LinearLast",
    "MaskedEvaluation",
    "MaxPoolingSection",
    "Normalisation",
    "NormalisedAttention",
    "NormalisedBranch",
    "NormalisedPositionwise",
    "PositionwiseBranch",
    "RescaleBranch",
    "ResidualBlock",
    "ResidualConvolutionSection",
    "ResidualElementwiseSection",
    "Rotary",
    "ScaleBranch",
    "Section",
    "compose",
    "residual_block",
    "soft_capped",
]
