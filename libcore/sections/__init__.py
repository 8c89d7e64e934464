"""The functions between adjacent node layers, each with what it knows about itself."""

from libcore.sections.affine import AffineSection
from libcore.sections.attention import AttentionSection
from libcore.sections.base import (
    ClosedForm,
    FastMaskedEvaluation,
    FunctionSection,
    LinearFirst,
    MaskedEvaluation,
    Section,
)
from libcore.sections.composed import ComposedSection, compose
from libcore.sections.convolution import ConvolutionSection, MaxPoolingSection
from libcore.sections.residual_convolution import ResidualConvolutionSection
from libcore.sections.residual_elementwise import ResidualElementwiseSection

__all__ = [
    "AffineSection",
    "AttentionSection",
    "ClosedForm",
    "ComposedSection",
    "ConvolutionSection",
    "FastMaskedEvaluation",
    "FunctionSection",
    "LinearFirst",
    "MaskedEvaluation",
    "MaxPoolingSection",
    "ResidualConvolutionSection",
    "ResidualElementwiseSection",
    "Section",
    "compose",
]
