r"""Gradients with respect to the signal through a network whose weights are frozen.

Guided samplers call the network backward as often as forward, with weights that need no gradient.
Two operations whose gradients autograd composes of many passes over memory have their own here,
with the values of the plain forms:

- The convolution with a kept spectrum K. Its transpose is the convolution with K*, so the way back
  costs what the way there costs; autograd pads half spectra and transforms complex numbers.
- The norm over channels. With the mean m and the inverse deviation r of x at a time step,
  s = r gain, and E the average over channels, its Jacobian, which is symmetric, takes v to

  .. math:: s\, (v - E v) - s r^2 (x - m)\, E[v (x - m)] .
"""

from typing import Any

import torch
from torch import Tensor

from ecgdiff.models.convolution import fft_convolve

__all__ = ["channel_norm", "frozen_convolve", "frozen_norm"]


def frozen_convolve(u: Tensor, spectrum: Tensor) -> Tensor:
    """Convolves u (channels, batch, L) as :func:`ecgdiff.models.convolution.fft_convolve` does.

    The spectrum, (channels, L + 1), gets no gradient.
    """
    product: Tensor = _Convolve.apply(u, spectrum)
    return product


def frozen_norm(x: Tensor, gain: Tensor, shift: Tensor, epsilon: float) -> Tensor:
    """Normalizes x (channels, batch, time) over its first axis, in float32 or better.

    Arguments:
        x: The signals.
        gain: One number; it gets no gradient.
        shift: One number; it gets no gradient.
        epsilon: Added to the variance.
    """
    normalized: Tensor = _Norm.apply(x, gain, shift, epsilon)[0]
    return normalized


class _Convolve(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(u: Tensor, spectrum: Tensor) -> Tensor:
        return fft_convolve(u, spectrum)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])
        ctx.save_for_forward(inputs[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (spectrum,) = ctx.saved_tensors
        return frozen_convolve(grad, spectrum.conj()), None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:
        (spectrum,) = ctx.saved_tensors
        return fft_convolve(tangent, spectrum)


class _Norm(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor, gain: Tensor, shift: Tensor, epsilon: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        return channel_norm(x, gain, shift, epsilon)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, gain, shift, ctx.epsilon = inputs
        _, mean, inverse = output
        ctx.mark_non_differentiable(mean, inverse)
        ctx.save_for_backward(x, gain, shift, mean, inverse)
        ctx.save_for_forward(x, gain, shift, mean, inverse)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor, None, None, None]:
        x, gain, shift, mean, inverse = ctx.saved_tensors
        if torch.is_grad_enabled():
            # Kept numbers have no graph: a second derivative needs them as functions of x.
            mean, inverse = channel_norm(x, gain, shift, ctx.epsilon)[1:]
        return _slope(x, gain, mean, inverse, grad), None, None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: Any) -> tuple[Tensor, None, None]:
        x, gain, _shift, mean, inverse = ctx.saved_tensors
        return _slope(x, gain, mean, inverse, tangent), None, None


def _slope(x: Tensor, gain: Tensor, mean: Tensor, inverse: Tensor, v: Tensor) -> Tensor:
    """The product of the norm's Jacobian with v."""
    scale = inverse * gain
    average = v.mean(0, keepdim=True, dtype=mean.dtype)
    product = (v * x).mean(0, keepdim=True, dtype=mean.dtype) - average * mean
    slope = -scale * inverse.square() * product
    offset = -scale * average - slope * mean
    return torch.addcmul(
        torch.addcmul(offset.to(x.dtype), x, slope.to(x.dtype)), v, scale.to(x.dtype)
    )


def channel_norm(
    x: Tensor, gain: Tensor, shift: Tensor, epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalizes as :func:`frozen_norm`, with gradients for all by autograd.

    Returns:
        What was asked for, and the mean and the inverse deviation at each time step.
    """
    # Sums of x and of x², then one pass: fewer passes over memory than by centering first.
    wide = torch.promote_types(x.dtype, torch.float32)
    mean = x.mean(0, keepdim=True, dtype=wide)
    variance = (x * x).mean(0, keepdim=True, dtype=wide) - mean * mean
    inverse = (variance.clamp(min=0) + epsilon).rsqrt()
    scale = inverse * gain
    y = torch.addcmul((shift - mean * scale).to(x.dtype), x, scale.to(x.dtype))
    return y, mean, inverse
