r"""A denoiser trained to see an observation: lost samples noisy, observed ones as measured.

For a mask M of what was observed, with y = x_0 + sigma_y z there and :math:`x = x_t / \alpha`, a
network F gives

.. math::
    D(x; \sigma, y, M) = \begin{cases} y & \text{observed} \\
      \frac{1}{\sigma^2 + 1}\, x + \frac{\sigma}{\sqrt{\sigma^2 + 1}}\, F & \text{lost}
      \end{cases}, \qquad F = F(u, \tfrac14 \ln \sigma, M / (1 + 4 \sigma_y)), \quad
    u = \begin{cases} y & \text{observed} \\ x / \sqrt{\sigma^2 + 1} & \text{lost,} \end{cases}

the preconditioning of :mod:`ecgdiff.diffusion.denoiser` on the lost samples. With nothing observed
it is a prior like any other.

References:
    | Diffusion-based Time Series Imputation and Forecasting with Structured State Space Models
    | (Alcaraz and Strodthoff, 2022), arXiv:2208.09399
    | Palette: Image-to-Image Diffusion Models (Saharia et al., 2022), arXiv:2111.05826
"""

import torch
from torch import Tensor, nn

from ecgdiff.diffusion.covariance import LeadFrequencyCovariance
from ecgdiff.diffusion.denoiser import Denoiser, LinearObservation, call_network
from ecgdiff.diffusion.schedule import Schedule
from ecgdiff.errors import OperatorError

__all__ = ["NOISE", "InpaintingDenoiser", "Seen", "network_input", "trust"]

NOISE = (0.02, 1.0)
"""Noise of observations that networks are trained on, in standard deviations of the signal."""


def trust(mask: Tensor, sigma: float | Tensor) -> Tensor:
    """What the network is told of an observation: 0 where lost, up to 1 where it is exact.

    Arguments:
        mask: True where observed, with shape (batch, channels, time).
        sigma: The noise's standard deviation, in standard deviations of the signal; broadcasts.
    """
    sigma = torch.as_tensor(sigma, dtype=torch.float32, device=mask.device)
    return torch.where(mask, 1 / (1 + 4 * sigma), 0.0)


def network_input(x: Tensor, sigma: Tensor, y: Tensor, mask: Tensor) -> Tensor:
    """The observation where there is one, the noisy signal in unit variance elsewhere.

    Arguments:
        x: The noisy signals x_0 + sigma z, with shape (batch, channels, time).
        sigma: Their noise level, broadcastable.
        y: What was observed, shaped as `x`.
        mask: True where observed, same shape.
    """
    return torch.where(mask, y, x / (sigma**2 + 1).sqrt())


class InpaintingDenoiser(Denoiser):
    """Creates the denoiser; signals are in units of their standard deviation.

    Arguments:
        net: The network F; called as net(u, level, trust) with shapes (batch, channels, time),
            (batch,) and (batch, channels, time), it returns the shape of u.
        schedule: The noise levels.
        covariance: The Gaussian approximation of the prior's covariance, if one was fitted.
    """

    def __init__(
        self,
        net: nn.Module,
        schedule: Schedule,
        covariance: LeadFrequencyCovariance | None = None,
    ) -> None:
        self.net = net
        self.schedule = schedule
        self.covariance = covariance

    def __call__(self, x_t: Tensor, t: int | Tensor) -> Tensor:
        """The posterior mean with nothing observed; see :class:`Denoiser`."""
        nothing = torch.zeros_like(x_t)
        return self.given(x_t, t, nothing, nothing)

    def condition(self, observation: LinearObservation) -> "Seen":
        """The denoiser that sees an observation of lost leads and stretches.

        Arguments:
            observation: Its operator is a mask of the channels themselves.

        Raises:
            OperatorError: If the operator is another, or the noise stronger, than the network was
                trained for.
        """
        operator, y = observation.operator, observation.y
        mask = getattr(operator, "mask", None)
        probe = torch.arange(1, y.numel() + 1).reshape(y.shape).to(y)
        # What counts is what the operator does: masks of mixed leads are called masks, too.
        if mask is None or not torch.equal(operator(probe), probe * mask):
            raise OperatorError(
                "A network can be shown a Mask of the leads that it models, not a "
                f"{type(operator).__name__}; use a sampler that guides it, such as "
                "MMPS."
            )
        sigma = observation.variance.sqrt()
        if (strongest := float(sigma.max())) > 1.001 * NOISE[1]:
            raise OperatorError(
                f"The noise is {strongest:.3g} standard deviations of the signal; networks are "
                f"trained for {NOISE[1]:g} at most. Use a sampler that guides them, such as MMPS."
            )
        return Seen(self, y, mask, sigma)

    def given(self, x_t: Tensor, t: int | Tensor, y: Tensor, trusted: Tensor) -> Tensor:
        """The posterior mean given what was observed.

        Arguments:
            x_t: The noisy signals, with shape (batch, channels, time); unused where observed.
            t: Their level, >= 1: one integer, or a long tensor of shape (batch,).
            y: What was observed, broadcastable to `x_t`.
            trusted: How well, from :func:`trust`; 0 where lost; broadcastable to `x_t`.
        """
        y, trusted = y.expand_as(x_t).to(x_t), trusted.expand_as(x_t).to(x_t)
        levels = torch.as_tensor(t, device=x_t.device).expand(len(x_t)).clamp(min=1)
        alpha, sigma = (
            f(levels).to(x_t)[:, None, None] for f in (self.schedule.alpha, self.schedule.sigma)
        )
        x, mask = x_t / alpha, trusted > 0
        level = sigma[:, 0, 0].log() / 4
        out = call_network(self.net, network_input(x, sigma, y, mask), level, trusted)
        mean = x / (sigma**2 + 1) + sigma / (sigma**2 + 1).sqrt() * out
        return torch.where(mask, y, mean)


class Seen(Denoiser):
    """Creates the denoiser of one observation: E[x_0 | x_t, y].

    Arguments:
        denoiser: The inpainting denoiser.
        y: What was observed, with shape (batch or 1, channels, time).
        mask: True where observed, same shape.
        sigma: The noise's standard deviation, broadcastable.
    """

    def __init__(
        self, denoiser: InpaintingDenoiser, y: Tensor, mask: Tensor, sigma: float | Tensor
    ) -> None:
        self.denoiser, self.schedule = denoiser, denoiser.schedule
        self.covariance = denoiser.covariance
        self.y, self.trusted = y, trust(mask, sigma)

    def __call__(self, x_t: Tensor, t: int | Tensor) -> Tensor:
        """The posterior mean; see :class:`Denoiser`."""
        return self.denoiser.given(x_t, t, self.y, self.trusted)
