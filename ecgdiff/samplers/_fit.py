r"""Gaussian fits by Adam on the divergence: the inner problem of MGPS and MGDM.

The target is a Gaussian factor :math:`N(w; m, s^2 I)` times a density whose negative score G(w),
its "pull", is known. With :math:`w = \mu + e^\rho z`, :math:`z \sim N(0, I)`, the gradients of the
divergence from :math:`N(\mu, \mathrm{diag}(e^{2\rho}))` are

.. math::
    \nabla_\mu = G(w) + (\mu - m) / s^2, \qquad
    \nabla_\rho = G(w)\, e^\rho z + e^{2\rho} / s^2 - 1 .

Everything is elementwise, so the items of a batch stay independent.

References:
    | Variational Diffusion Posterior Sampling with Midpoint Guidance (Janati et al., ICLR 2025)
    | arXiv:2410.09945
    | Adam: A Method for Stochastic Optimization (Kingma & Ba, 2015), arXiv:1412.6980
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ecgdiff.diffusion.denoiser import Denoiser, score_from_x0
from ecgdiff.operators.base import Observation

__all__ = ["Kernel", "Noise", "Pull", "clean_pull", "fit", "gradient", "guided_pull"]

Noise = Callable[[], Tensor]
"""Returns fresh standard normal numbers, with shape (batch, channels, time)."""

Pull = Callable[[Tensor], Tensor]
"""The negative score G(w) of all factors but the Gaussian one, shaped as w."""


class Kernel(NamedTuple):
    """The Gaussian factor N(mean, variance I) of a fit, and where (mu, e^rho) start.

    Attributes:
        mean: Its mean, with shape (batch, channels, time).
        variance: Its variance.
        start: Where mu starts, shaped as `mean`.
        std: Where e^rho starts.
    """

    mean: Tensor
    variance: float
    start: Tensor
    std: float


def guided_pull(denoiser: Denoiser, observation: Observation, level: int, *, score: bool) -> Pull:
    """The pull of g(D_l(w)), and of the prior's density at its level too if `score`.

    It is g(D_l(w)) at l = 1, too, where MGPS as published takes w for clean, that is g(w).

    Arguments:
        denoiser: The prior; one evaluation and one backward pass per call.
        observation: What the likelihood g is of.
        level: The level l of w.
        score: Whether the prior's density is a factor (the score form).
    """

    def pull(w: Tensor) -> Tensor:
        with torch.enable_grad():
            w = w.detach().requires_grad_()
            x0 = denoiser(w, level)
            (gradient,) = torch.autograd.grad(observation.log_likelihood(x0).sum(), w)
        if not score:
            return -gradient
        return -gradient - score_from_x0(w.detach(), x0.detach(), level, denoiser.schedule)

    return pull


def clean_pull(denoiser: Denoiser, observation: Observation) -> Pull:
    """The pull of g(w) p_1(w): w of level 1 counts as clean.

    Arguments:
        denoiser: The prior; one evaluation per call, and no backward pass through it.
        observation: What the likelihood g is of.
    """

    def pull(w: Tensor) -> Tensor:
        with torch.enable_grad():
            w = w.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(observation.log_likelihood(w).sum(), w)
        w = w.detach()
        return -gradient - score_from_x0(w, denoiser(w, 1), 1, denoiser.schedule)

    return pull


def fit(
    pull: Pull, kernel: Kernel, steps: int, lr: float, unit: float, noise: Noise
) -> tuple[Tensor, Tensor]:
    """Fits N(mu, diag(e^{2 rho})) to a target.

    Arguments:
        pull: The negative score of the target's other factors.
        kernel: The target's Gaussian factor, and the start.
        steps: The gradient steps, from 0.
        lr: Adam's step size, in nats for rho and in `unit` for mu.
        unit: The unit in which mu is fitted, in model units.
        noise: The source of randomness.

    Returns:
        The means mu and the standard deviations e^rho, each shaped as the kernel's mean.
    """
    # mu = start + unit u and rho = ln std + h; Adam does not depend on where its variables are
    # centered.
    start = kernel.start
    variables = torch.zeros((2, *start.shape), dtype=start.dtype, device=start.device)
    adam = _Adam(lr, variables)
    for _ in range(steps):
        mu, std = start + unit * variables[0], kernel.std * variables[1].exp()
        grad_mu, grad_rho = gradient(pull, kernel, mu, std, noise())
        variables = adam.step(variables, torch.stack((unit * grad_mu, grad_rho)))
    return start + unit * variables[0], kernel.std * variables[1].exp()


def gradient(
    pull: Pull, kernel: Kernel, mu: Tensor, std: Tensor, z: Tensor
) -> tuple[Tensor, Tensor]:
    """One-sample gradients of the divergence in mu and rho = ln std, at w = mu + std z."""
    force = pull(mu + std * z)
    grad_mu = force + (mu - kernel.mean) / kernel.variance
    return grad_mu, force * std * z + std**2 / kernel.variance - 1


class _Adam:
    """Adam with its usual constants, elementwise."""

    def __init__(self, lr: float, like: Tensor) -> None:
        self.lr, self.count = lr, 0
        self.first, self.second = torch.zeros_like(like), torch.zeros_like(like)

    def step(self, variables: Tensor, gradient: Tensor) -> Tensor:
        """The variables after one step."""
        self.count += 1
        self.first = 0.9 * self.first + 0.1 * gradient
        self.second = 0.999 * self.second + 0.001 * gradient**2
        first = self.first / (1 - 0.9**self.count)
        second = self.second / (1 - 0.999**self.count)
        return variables - self.lr * first / (second.sqrt() + 1e-8)
