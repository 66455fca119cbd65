r"""What one call of a guided denoiser met, for those who ask whether a guidance is healthy.

A list in `GuidedDenoiser.calls` is filled with one :class:`Call` per call:

    guided = MMPS(iterations=3).guide(prior.denoiser, observation)
    guided.calls = []
    draws = ancestral(guided, MMPS(iterations=3).levels(prior.denoiser), shape)
    max(float(call.overshoot.max()) for call in guided.calls)

The overshoot of a shift :math:`\Delta` of the mean towards an observation of residual r is

.. math:: q = \frac{r^T R^{-1} A \Delta}{r^T R^{-1} r} .

It is between 0 and 1 for the exact correction, whatever the noise R.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Call", "overshoot"]


@dataclass(frozen=True)
class Call:
    """What one call met; all tensors have the shape (batch,).

    Arguments:
        sigma: The noise level, in model units.
        overshoot: q of the shift as it was solved for; above 1 it is divided by q if the method
            caps it.
        iterations: Conjugate gradients made, where the method iterates.
        residual: What they left of the residual, relative; where the method iterates.
        indefinite: Whether they ended at a direction of no positive curvature, which a learned
            Jacobian can have; where the method iterates.
        clipped: The share of variances outside their limits, where the method has limits.
    """

    sigma: float
    overshoot: Tensor
    iterations: Tensor | None = None
    residual: Tensor | None = None
    indefinite: Tensor | None = None
    clipped: Tensor | None = None


def overshoot(r: Tensor, image: Tensor, variance: Tensor) -> Tensor:
    """The overshoot q of each item, with shape (batch,); 0 where the residual is zero.

    Arguments:
        r: The residuals, with shape (batch, ...).
        image: The images A Delta of the shifts, shaped as `r`.
        variance: The noise variances R, broadcastable to `r`.
    """
    size = (r**2 / variance).flatten(1).sum(1)
    return (r * image / variance).flatten(1).sum(1) / torch.where(size > 0, size, 1.0)
