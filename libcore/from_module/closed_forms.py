"""The section that a closed form is."""

from __future__ import annotations

from libcore.from_module.affine_maps import NoClosedForm
from libcore.from_module.forms import Form, HiddenLayer
from libcore.sections import (
    AffineSection,
    BlockSection,
    Elementwise,
    Linear,
    PositionwiseBranch,
    ResidualConvolutionSection,
    ResidualElementwiseSection,
    Section,
)


def section_of_form(form: Form, constant_out: bool) -> Section:
    """Raises NoClosedForm for a form that no section has."""
    form = form.as_vector()
    if not constant_out:
        hidden = tuple(
            HiddenLayer(layer.reads, layer.writes.without_constant(), layer.function, layer.normalisation)
            for layer in form.hidden
        )
        form = Form(form.linear.without_constant(), hidden, form.width, form.grid)
    if form.linear.grid is not None:
        return convolution_section(form)
    if not form.hidden:
        return AffineSection(form.linear.matrix)
    first = form.hidden[0]
    if len(form.hidden) == 1 and first.normalisation is None and first.function is not None:
        return ResidualElementwiseSection(form.linear.matrix, first.reads.matrix, first.writes.matrix, first.function)
    return BlockSection(form.linear.matrix, tuple(branch(layer) for layer in form.hidden))


def branch(layer: HiddenLayer) -> PositionwiseBranch:
    """One hidden layer, or a linear map after a normalisation."""
    hidden = Linear() if layer.function is None else Elementwise(layer.function)
    return PositionwiseBranch(layer.reads.matrix, layer.writes.matrix, hidden, layer.normalisation)


def convolution_section(form: Form) -> Section:
    """With one hidden layer or none."""
    linear = form.linear.section()
    if not form.hidden:
        return linear
    layer, *others = form.hidden
    if others:
        raise NoClosedForm("several nonlinear paths of an image beside each other")
    assert layer.function is not None
    try:
        return ResidualConvolutionSection(linear, layer.reads.section(), layer.writes.section(), layer.function)
    except ValueError as error:
        raise NoClosedForm(str(error)) from None
