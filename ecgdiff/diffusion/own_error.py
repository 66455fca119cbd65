r"""Does a denoiser know its own error? Tweedie's covariance against what is really missed.

For a perfect denoiser, with :math:`x = x_t / \alpha_t`,

.. math:: \mathrm{Cov}[x_0 | x_t] = \sigma^2 \, \frac{\partial D}{\partial x}, \qquad
          \mathrm{E} \, |x_0 - D|^2 = \sigma^2 \, \mathrm{E} \, \mathrm{tr} \,
          \frac{\partial D}{\partial x},

with or without an observation that D is shown. A sampler learns the spread of its draws from that
Jacobian alone, so where the left side of the second is larger, the draws are too sure, by about
the square root of the ratio in the noise of that level.

References:
    | Tweedie's Formula and Selection Bias (Efron, 2011)
"""

import torch
from torch import Tensor

from ecgdiff.diffusion.denoiser import Denoiser

__all__ = ["own_error"]


def own_error(
    denoiser: Denoiser,
    x0: Tensor,
    level: int,
    where: Tensor,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Measures the squared error of a denoiser and the one that its Jacobian implies.

    Arguments:
        denoiser: The denoiser, differentiable; for what it was shown, `prior.condition(...)`.
        x0: True signals in model units, with shape (batch, channels, time).
        level: The noise level t, at least 1.
        where: True for the samples that count, broadcastable to `x0`.
        generator: For the noise and the random signs of the trace's estimate.

    Returns:
        Both summed over the samples that count, one number per signal each, in squared model
        units. The second is a noisy estimate: average it over signals.
    """
    alpha, sigma = (float(f(level)) for f in (denoiser.schedule.alpha, denoiser.schedule.sigma))
    noise = torch.randn(x0.shape, generator=generator, dtype=x0.dtype)
    signs = torch.randn(x0.shape, generator=generator, dtype=x0.dtype).sign() * where
    x_t = (alpha * (x0 + sigma * noise)).requires_grad_()
    with torch.enable_grad():
        mean = denoiser(x_t, level)
        (pulled,) = torch.autograd.grad(mean, x_t, signs)
    missed = ((mean.detach() - x0).square() * where).flatten(1).sum(1)
    implied = sigma**2 * alpha * (pulled * signs).flatten(1).sum(1)
    return missed, implied
