r"""Gradients with respect to the signal through a network whose weights are frozen.

Guided samplers call the network backward as often as forward, with weights that need no gradient.
Two operations whose gradients autograd composes of many passes over memory have their own here,
with the values of the plain forms:

- The convolution with a kept spectrum K. Its transpose is the convolution with K*, so the way back
  costs what the way there costs; autograd pads half spectra and transforms complex numbers.
- The norm over channels. With m, r the mean and inverse deviation at a time step, s = r gain
  and averages over channels,

  .. math:: \bar x = s \bar y - s \overline{\bar y} - s r^2 (x - m) \overline{\bar y (x - m)} .
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

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
    normalized: Tensor = _Norm.apply(x, gain, shift, epsilon)
    return normalized


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, spectrum: Tensor) -> Tensor:
        ctx.save_for_backward(spectrum)
        return fft_convolve(u, spectrum)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (spectrum,) = ctx.saved_tensors
        return frozen_convolve(grad, spectrum.conj()), None


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, shift: Tensor, epsilon: float) -> Tensor:
        y, mean, inverse = channel_norm(x, gain, shift, epsilon)
        ctx.save_for_backward(x, gain, mean, inverse)
        return y

    # What the forward pass keeps has no graph, so a second derivative would be wrong, not slow.
    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        x, gain, mean, inverse = ctx.saved_tensors
        scale = inverse * gain
        average = grad.mean(0, keepdim=True, dtype=mean.dtype)
        product = (grad * x).mean(0, keepdim=True, dtype=mean.dtype) - average * mean
        slope = -scale * inverse.square() * product
        offset = -scale * average - slope * mean
        out = torch.addcmul(offset.to(x.dtype), x, slope.to(x.dtype))
        return out.addcmul_(grad, scale.to(x.dtype)), None, None, None


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
