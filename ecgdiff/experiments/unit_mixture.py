r"""A mixture of Gaussians of unit covariance: the exact denoiser, in the cost of its means.

For :math:`p = \sum_i w_i N(\mu_i, I)`, :math:`a` the signal fraction and :math:`v = 1 - a`,

.. math::
    D(x) = \sqrt a\, x + v\, \bar m, \qquad \bar m = \sum_i \rho_i(x) \mu_i, \qquad
    \rho(x) = \mathrm{softmax}_i [ \ln w_i + \sqrt a\, x^T \mu_i - \tfrac a2 \|\mu_i\|^2 ],

the same as :class:`ecgdiff.diffusion.gaussian.GaussianMixturePrior` with K dense covariances.
"""

import torch
from torch import Tensor

from ecgdiff.diffusion.denoiser import Denoiser
from ecgdiff.diffusion.schedule import Schedule

__all__ = ["UnitMixture"]


class UnitMixture(Denoiser):
    """Creates the denoiser of a mixture of unit covariances, for signals (batch, 1, n).

    Arguments:
        weights: The weights, positive, normalized here, with shape (K,).
        means: The means, with shape (K, n).
        schedule: The noise levels.
    """

    def __init__(self, weights: Tensor, means: Tensor, schedule: Schedule) -> None:
        self.weights = weights.double() / weights.double().sum()
        self.means = means.double()
        self.schedule = schedule

    def __call__(self, x_t: Tensor, t: int | Tensor) -> Tensor:
        """The posterior mean; see :class:`ecgdiff.diffusion.denoiser.Denoiser`."""
        a = self.schedule.alpha(t).to(x_t).reshape(-1, 1) ** 2
        means = self.means.to(x_t)
        x = x_t.flatten(1)
        logits = self.weights.to(x_t).log() + a.sqrt() * x @ means.mT
        rho = (logits - a / 2 * means.square().sum(1)).softmax(1)
        return (a.sqrt() * x + (1 - a) * (rho @ means)).reshape(x_t.shape)

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Draws, float64, with shape (count, n)."""
        k = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        z = torch.randn((count, self.means.shape[1]), generator=generator, dtype=torch.float64)
        return self.means[k] + z

    def posterior_sample(
        self, matrix: Tensor, y: Tensor, sigma: float, count: int, generator: torch.Generator
    ) -> Tensor:
        """Exact draws of the posterior given y = A x + sigma z.

        Arguments:
            matrix: The operator A, with shape (m, n).
            y: The observation, with shape (m,).
            sigma: The noise's standard deviation.
            count: How many draws.
            generator: The source of randomness.

        Returns:
            The draws, float64, with shape (count, n).
        """
        g = matrix @ matrix.mT + sigma**2 * torch.eye(len(matrix), dtype=torch.float64)
        residual = y - self.means @ matrix.mT
        evidence = -(residual * torch.linalg.solve(g, residual.mT).mT).sum(1) / 2
        weights = (self.weights.log() + evidence).softmax(0)
        k = torch.multinomial(weights, count, replacement=True, generator=generator)
        shape = (count, self.means.shape[1])
        # Matheron's rule: a joint draw of signal and observation, moved to the observation made.
        x = self.means[k] + torch.randn(shape, generator=generator, dtype=torch.float64)
        noise = sigma * torch.randn((count, len(y)), generator=generator, dtype=torch.float64)
        gap = y - x @ matrix.mT - noise
        draws: Tensor = x + torch.linalg.solve(g, gap.mT).mT @ matrix
        return draws
