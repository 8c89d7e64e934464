"""Values inside a module as closed forms of the activation `f` that a section starts from.

A form is `f @ L + sum_k φ_k(n_k(f) @ A_k) @ B_k`, its maps matrices at every position or convolutions, with a
normalisation `n_k` or none. `L` carries the constant coordinate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from libcore.from_module.affine_maps import LARGEST_KERNEL, AffineMap, NoClosedForm, averaging, identity, pointwise
from libcore.from_module.layouts import Layout
from libcore.sections import Normalisation

Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class HiddenLayer:
    """`φ(n(f) @ reads) @ writes`.

    Attributes:
        reads: without the constant coordinate in its output.
        writes: hidden activations without constant coordinate, to an output with a zero for it.
        function: `φ`; None for none, after a normalisation.
        normalisation: `n`; None for none.
    """

    reads: AffineMap
    writes: AffineMap
    function: Function | None
    normalisation: Normalisation | None = None


@dataclass(frozen=True)
class Form:
    """A value of the module.

    Attributes:
        width: its coordinates, without the constant one.
        grid: rows and columns of its pixels; None where positions are no pixels.
        flattened: whether the module has it as `[batch, channel * row * column]`.
    """

    linear: AffineMap
    hidden: tuple[HiddenLayer, ...]
    width: int
    grid: tuple[int, int] | None
    flattened: bool = False

    @property
    def of_pixels(self) -> bool:
        """Whether the module has it as an image."""
        return self.grid is not None and not self.flattened

    def then(self, map_: AffineMap) -> Form:
        """An affine map of it."""
        linear = self.linear.then(map_)
        hidden = tuple(replace(layer, writes=layer.writes.then(map_)) for layer in self.hidden)
        return replace(self, linear=linear, hidden=hidden, width=map_.kernel.shape[3] - 1, grid=map_.grid_out)

    def matrix(self, weight: Float[Tensor, "d_in d_out"], bias: Float[Tensor, " d_out"] | None) -> Form:
        """`x @ W + b` over the last dimension that the module has."""
        if self.of_pixels:
            raise NoClosedForm("over a row of pixels")
        if not self.flattened or self.grid in {None, (1, 1)}:
            return self.then(pointwise(weight, bias, self.grid))
        assert self.grid is not None
        if self.grid[0] * self.grid[1] * (self.width + 1) * (weight.shape[1] + 1) > LARGEST_KERNEL:
            raise NoClosedForm("too large")
        by_pixel = weight.unflatten(0, (self.width, *self.grid)).permute(1, 2, 0, 3)
        whole = pointwise(torch.zeros_like(by_pixel[0, 0]), bias, None).kernel / (self.grid[0] * self.grid[1])
        kernel = whole.repeat(*self.grid, 1, 1)
        kernel[:, :, :-1, :-1] = by_pixel
        return self.then(AffineMap(kernel, self.grid, stride=self.grid[0]))

    def each_coordinate(self, scale: Tensor | None, shift: Tensor | None) -> Form:
        """`x * scale + shift`, one number for each coordinate."""
        if self.flattened and self.grid not in {None, (1, 1)}:
            raise NoClosedForm("coordinates that differ by pixel")
        scale = self.like(torch.ones(self.width)) if scale is None else scale
        return self.then(pointwise(torch.diag(scale), shift, self.grid))

    def scaled(self, factor: float) -> Form:
        """`x * factor`."""
        scale = self.like(torch.full((self.width,), factor, dtype=torch.float64))
        return self.then(pointwise(torch.diag(scale), None, self.grid))

    def like(self, tensor: Tensor) -> Tensor:
        """Moved to the maps' device, float64."""
        return tensor.to(self.linear.kernel)

    def plus(self, other: Form) -> Form:
        """The sum; both carry the constant alike."""
        if (self.width, self.grid, self.flattened) != (other.width, other.grid, other.flattened):
            raise NoClosedForm("of different shapes")
        one, two = self.linear.constant_only(), other.linear.constant_only()
        if (one.stride, one.padding, one.window) != (two.stride, two.padding, two.window) or not torch.allclose(
            one.kernel[..., -1], two.kernel[..., -1], rtol=0, atol=1e-12
        ):
            raise NoClosedForm("of different positions")
        linear = self.linear.plus(other.linear.not_carrying().trimmed())
        return replace(self, linear=linear, hidden=self.hidden + other.hidden)

    def elementwise(self, function: Function) -> Form:
        """`φ` of it: NoClosedForm where it is a function of hidden activations already."""
        if not self.hidden:
            layer = HiddenLayer(self.linear.without_constant(), self.hidden_identity(), function)
        else:
            layer = self.after_normalisation(function)
        return replace(self, linear=self.linear.constant_only(), hidden=(layer,))

    def hidden_identity(self) -> AffineMap:
        """Writes hidden activations as they are."""
        return identity(self.width, self.grid, self.linear.kernel).reading_hidden()

    def after_normalisation(self, function: Function) -> HiddenLayer:
        """`φ` of a linear map of what was normalised."""
        layer, bias = self.hidden[0], self.linear.not_carrying()
        if (
            len(self.hidden) > 1
            or layer.function is not None
            or not self.linear.pointwise
            or bias.kernel[..., :-1, :].any()
        ):
            raise NoClosedForm("one nonlinear function after another")
        reads = layer.reads.then(layer.writes.without_constant())
        reads = reads.plus(bias.without_constant())
        return HiddenLayer(reads, self.hidden_identity(), function, layer.normalisation)

    def normalised(self, centred: bool, eps: float, gain: Tensor | None, bias: Tensor | None) -> Form:
        """LayerNorm or RMSNorm of the activation itself."""
        whole = identity(self.width, self.grid, self.linear.kernel).kernel
        if self.grid is not None or self.hidden or not torch.equal(self.linear.kernel, whole):
            raise NoClosedForm("a normalisation of something else than the activation")
        gain = self.like(torch.ones(self.width)) if gain is None else gain
        reads = pointwise(torch.diag(gain), bias, None).without_constant()
        layer = HiddenLayer(reads, self.hidden_identity(), None, Normalisation(self.width, centred, eps))
        return replace(self, linear=self.linear.constant_only(), hidden=(layer,))

    def mean_over_pixels(self, *, flattened: bool) -> Form:
        """The mean over the whole image, as an image of one pixel or without pixels."""
        if not self.of_pixels:
            raise NoClosedForm("no image")
        assert self.grid is not None
        mean = averaging(self.width, self.grid, self.grid, self.grid[0], self.linear.kernel)
        return replace(self.then(mean), flattened=flattened)

    def as_vector(self) -> Form:
        """Of a flattened image, all pixels' channels as the coordinates of one position."""
        if not self.flattened or self.grid in {None, (1, 1)}:
            return self
        assert self.grid is not None
        width = self.width * self.grid[0] * self.grid[1]
        if width * width > LARGEST_KERNEL:
            raise NoClosedForm("too large")
        return self.matrix(self.like(torch.eye(width)), None)


def activation_form(layout: Layout, like: Tensor) -> Form:
    """The activation itself."""
    return Form(identity(layout.width, layout.grid, like.double()), (), layout.width, layout.grid)
