r"""Gaussian priors and mixtures of them: exact denoisers with exact posteriors.

For the prior :math:`N(\mu, C)` and :math:`x_t = \alpha x_0 + s \epsilon`

.. math::
    p_t = N(\alpha\mu,\ \alpha^2 C + s^2 I), \qquad
    \hat x_0 = \mu + \alpha C (\alpha^2 C + s^2 I)^{-1} (x_t - \alpha\mu), \qquad
    \Sigma_t = C - \alpha^2 C (\alpha^2 C + s^2 I)^{-1} C

and for y = A x + noise of covariance R

.. math:: K = C A^T (A C A^T + R)^{-1}, \quad \mu_y = \mu + K (y - A \mu), \quad C_y = C - K A C .

For a mixture, with responsibilities
:math:`\rho_k \propto w_k N(x_t; \alpha\mu_k, \alpha^2 C_k + s^2 I)`,

.. math::
    \hat x_0 = \sum_k \rho_k m_k, \qquad
    \Sigma_t = \sum_k \rho_k \Sigma_k + \sum_k \rho_k (m_k - \hat x_0)(m_k - \hat x_0)^T,

and its posterior is the mixture of the components' posteriors with weights
:math:`\propto w_k N(y; A\mu_k, A C_k A^T + R)`. Everything is evaluated through the eigenvalues
of C, in float64. Signals of shape (channels, time) are flattened in that order wherever a vector
or matrix of size n = channels * time appears.
"""

from collections.abc import Sequence
from math import log, pi

import torch
from torch import Tensor

from ecgdiff.diffusion.covariance import LeadFrequencyCovariance
from ecgdiff.diffusion.denoiser import Denoiser, LinearObservation
from ecgdiff.diffusion.schedule import Schedule
from ecgdiff.random import Generator, normal

__all__ = ["GaussianMixturePrior", "GaussianPrior"]


class _DenseBasis:
    """The eigenvectors of a dense covariance, with the interface of a lead-frequency one."""

    def __init__(self, covariance: Tensor, shape: tuple[int, int]) -> None:
        self.values, self.vectors = _eigh(covariance)
        self.shape = shape

    def to_basis(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.vectors.to(x)

    def from_basis(self, z: Tensor) -> Tensor:
        return (z @ self.vectors.to(z).mT).reshape(-1, *self.shape)

    def dense(self) -> Tensor:
        return (self.vectors * self.values) @ self.vectors.mT


class GaussianPrior(Denoiser):
    """Creates the exact denoiser of a Gaussian prior.

    Arguments:
        mean: The mean, in model units, with shape (channels, time).
        covariance: The covariance over flattened signals, with shape (n, n) for n = channels *
            time, or a lead-frequency covariance (then nothing of size (n, n) is formed while
            denoising).
        schedule: The noise levels.

    Attributes:
        covariance: The lead-frequency covariance if the prior was made from one, else None.
        mean: The mean, float64, with shape (channels, time).

    Raises:
        ValueError: If the shapes do not agree or the covariance is not symmetric positive
            semi-definite.
    """

    def __init__(
        self, mean: Tensor, covariance: Tensor | LeadFrequencyCovariance, schedule: Schedule
    ) -> None:
        self.mean = mean.detach().to("cpu", torch.float64)
        self.schedule = schedule
        if self.mean.ndim != 2:
            raise ValueError(f"The mean has shape {tuple(mean.shape)}; give (channels, time).")
        shape = (mean.shape[0], mean.shape[1])
        self._basis: _DenseBasis | LeadFrequencyCovariance
        if isinstance(covariance, LeadFrequencyCovariance):
            size = (covariance.channels, covariance.n_samples)
            if shape != size:
                raise ValueError(f"The mean has shape {shape} but the covariance is of {size}.")
            self.covariance = self._basis = covariance
            self._values = covariance.eigenvalues.flatten()
        else:
            if covariance.shape != (mean.numel(), mean.numel()):
                raise ValueError(
                    f"The covariance has shape {tuple(covariance.shape)}; "
                    f"a mean of shape {shape} needs ({mean.numel()}, {mean.numel()})."
                )
            self._basis = _DenseBasis(covariance, shape)
            self._values = self._basis.values

    @classmethod
    def from_covariance(
        cls, covariance: LeadFrequencyCovariance, schedule: Schedule, mean: float | Tensor = 0.0
    ) -> "GaussianPrior":
        """Creates the prior whose covariance a lead-frequency model describes exactly.

        Arguments:
            covariance: The covariance.
            schedule: The noise levels.
            mean: The mean, a number or broadcastable to (channels, time).
        """
        full = torch.as_tensor(mean, dtype=torch.float64)
        return cls(full.expand(covariance.channels, covariance.n_samples), covariance, schedule)

    @property
    def shape(self) -> tuple[int, int]:
        """The shape (channels, time) of one signal."""
        return self.mean.shape[0], self.mean.shape[1]

    @property
    def dense_covariance(self) -> Tensor:
        """The covariance over flattened signals, float64, with shape (n, n)."""
        return self._basis.dense()

    def __call__(self, x_t: Tensor, t: int | Tensor) -> Tensor:
        """The posterior mean; see :class:`Denoiser`."""
        alpha, std = _row(self.schedule.alpha(t)), _row(self.schedule.std(t))
        total = alpha**2 * self._values.to(alpha.device) + std**2
        gain = alpha * self._values.to(alpha.device) / total
        gain = torch.where(total > 0, gain, 0.0).to(
            x_t
        )  # a direction without variance stays at the mean
        mean = self.mean.to(x_t)
        centered = x_t - alpha.to(x_t).unsqueeze(-1) * mean
        return mean + self._basis.from_basis(gain * self._basis.to_basis(centered))

    def log_density(self, x_t: Tensor, t: int) -> Tensor:
        """The log-density log p_t(x_t), shape (batch,), of signals (batch, channels, time)."""
        alpha, std = float(self.schedule.alpha(t)), float(self.schedule.std(t))
        total = (alpha**2 * self._values + std**2).to(x_t)
        z = self._basis.to_basis(x_t - alpha * self.mean.to(x_t))
        return -(z**2 / total + total.log() + log(2 * pi)).sum(1) / 2

    def tweedie_covariance(self, t: int) -> Tensor:
        """The covariance of x_0 given x_t, float64, with shape (n, n); the same for every x_t."""
        variance = float(self.schedule.sigma(t)) ** 2
        total = self._values + variance
        values = torch.where(total > 0, self._values * variance / total, 0.0)
        root = self._basis.from_basis(torch.diag_embed(values.sqrt())).flatten(1)
        return root.mT @ root

    def sample(self, batch: int, generator: Generator = None) -> Tensor:
        """Draws of the prior, float64, with shape (batch, channels, time)."""
        z = normal((batch, self.mean.numel()), generator, torch.float64)
        return self.mean + self._basis.from_basis(z * self._values.sqrt())

    def posterior(self, observation: LinearObservation) -> tuple[Tensor, Tensor]:
        """The posterior given a linear observation, per item.

        Returns:
            The means (batch, channels, time) and the covariances (batch, n, n), float64.
        """
        matrix, y, noise = _linear_model(observation, self.shape)
        mean, covariance, _ = _kalman(self.mean.flatten(), self.dense_covariance, matrix, y, noise)
        return mean.reshape(-1, *self.shape), covariance

    def condition(self, observation: LinearObservation) -> Denoiser:
        """The exact conditional denoiser, which is the posterior as a prior; one per item."""
        parts = [
            GaussianPrior(mean, covariance, self.schedule)
            for mean, covariance in zip(*self.posterior(observation), strict=True)
        ]
        return parts[0] if len(parts) == 1 else _PerItem(parts)


class _PerItem(Denoiser):
    """A prior of its own for each item of a batch."""

    def __init__(self, parts: Sequence[Denoiser]) -> None:
        self.parts, self.schedule = parts, parts[0].schedule

    def __call__(self, x_t: Tensor, t: int | Tensor) -> Tensor:
        levels = torch.as_tensor(t).expand(len(x_t))
        items = zip(self.parts, x_t, levels, strict=True)
        return torch.cat([part(x[None], int(level)) for part, x, level in items])


class GaussianMixturePrior(Denoiser):
    """Creates the exact denoiser of a mixture of Gaussians.

    Arguments:
        weights: The weights, positive, normalized here, with shape (K,).
        means: The means over flattened signals, in model units, with shape (K, n).
        covariances: The covariances, with shape (K, n, n).
        schedule: The noise levels.
        shape: The shape (channels, time) of one signal, with n = channels * time.

    Attributes:
        weights: The normalized weights, float64.
        means: The means, float64.
        covariances: The covariances, float64.

    Raises:
        ValueError: If the shapes do not agree, a weight is not positive or a covariance is not
            one.
    """

    def __init__(
        self,
        weights: Tensor,
        means: Tensor,
        covariances: Tensor,
        schedule: Schedule,
        shape: tuple[int, int],
    ) -> None:
        size, n = len(weights), shape[0] * shape[1]
        if weights.ndim != 1 or means.shape != (size, n) or covariances.shape != (size, n, n):
            raise ValueError(
                f"Weights {tuple(weights.shape)}, means {tuple(means.shape)} and covariances "
                f"{tuple(covariances.shape)} do not agree; for {size} components "
                f"of shape {shape} give ({size},), ({size}, {n}) and ({size}, {n}, {n})."
            )
        if not bool((weights > 0).all()):
            raise ValueError("The weights of a mixture must be positive.")
        self.weights = weights.detach().to("cpu", torch.float64)
        self.weights = self.weights / self.weights.sum()
        self.means = means.detach().to("cpu", torch.float64)
        self.covariances = covariances.detach().to("cpu", torch.float64)
        self.schedule = schedule
        self.shape = shape
        self._values, self._vectors = _eigh(self.covariances)

    def _components(self, x_t: Tensor, t: int | Tensor) -> tuple[Tensor, Tensor]:
        """Joint log-densities (batch, K) and posterior means (batch, K, n) of the components."""
        alpha = _row(self.schedule.alpha(t)).to(x_t).unsqueeze(-1)
        std = _row(self.schedule.std(t)).to(x_t).unsqueeze(-1)
        values, vectors, means = (v.to(x_t) for v in (self._values, self._vectors, self.means))
        total = alpha**2 * values + std**2
        z = torch.einsum("bkn,knm->bkm", x_t.flatten(1)[:, None] - alpha * means, vectors)
        log_density = -(z**2 / total + total.log() + log(2 * pi)).sum(-1) / 2
        m = means + torch.einsum("bkm,knm->bkn", alpha * values / total * z, vectors)
        return self.weights.to(x_t).log() + log_density, m

    def __call__(self, x_t: Tensor, t: int | Tensor) -> Tensor:
        """The posterior mean; see :class:`Denoiser`. At t = 0 the covariances must be regular."""
        log_joint, m = self._components(x_t, t)
        return (log_joint.softmax(1).unsqueeze(-1) * m).sum(1).reshape(-1, *self.shape)

    def log_density(self, x_t: Tensor, t: int) -> Tensor:
        """The log-density log p_t(x_t), shape (batch,), of signals (batch, channels, time)."""
        return self._components(x_t, t)[0].logsumexp(1)

    def tweedie_covariance(self, x_t: Tensor, t: int) -> Tensor:
        """The covariances of x_0 given x_t (batch, channels, time), with shape (batch, n, n)."""
        log_joint, m = self._components(x_t, t)
        rho = log_joint.softmax(1)
        variance = float(self.schedule.sigma(t)) ** 2
        values = self._values * variance / (self._values + variance)
        within = ((self._vectors * values[:, None, :]) @ self._vectors.mT).to(x_t)
        deviation = m - (rho.unsqueeze(-1) * m).sum(1, keepdim=True)
        between = torch.einsum("bk,bkn,bkm->bnm", rho, deviation, deviation)
        return torch.einsum("bk,knm->bnm", rho, within) + between

    def sample(self, batch: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws of the prior, float64, with shape (batch, channels, time)."""
        k = torch.multinomial(self.weights, batch, replacement=True, generator=generator)
        z = normal((batch, self.means.shape[1]), generator, torch.float64)
        z = torch.einsum("bm,bnm->bn", z * self._values[k].sqrt(), self._vectors[k])
        return (self.means[k] + z).reshape(-1, *self.shape)

    def condition(self, observation: LinearObservation) -> "GaussianMixturePrior":
        """The exact conditional denoiser given one item, which is :meth:`posterior`."""
        return self.posterior(observation)

    def posterior(self, observation: LinearObservation) -> "GaussianMixturePrior":
        """The posterior given a linear observation of one item, as a mixture."""
        _check_single(observation)
        matrix, y, noise = _linear_model(observation, self.shape)
        parts = [
            _kalman(mean, covariance, matrix, y, noise)
            for mean, covariance in zip(self.means, self.covariances, strict=True)
        ]
        means, covariances, log_evidence = (torch.cat(p) for p in zip(*parts, strict=True))
        # A component that the data exclude keeps the smallest weight that is still positive.
        weights = (self.weights.log() + log_evidence).softmax(0).clamp(min=1e-300)
        return GaussianMixturePrior(weights, means, covariances, self.schedule, self.shape)


def _row(coefficient: Tensor) -> Tensor:
    """A coefficient of shape () or (batch,) as (1, 1) or (batch, 1)."""
    return coefficient.reshape(-1, 1)


def _eigh(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, not below zero, and eigenvectors of covariances (..., n, n), in float64."""
    c = covariance.detach().to("cpu", torch.float64)
    largest = float(c.abs().amax())
    if not float((c - c.mT).abs().amax()) <= 1e-8 * largest:
        raise ValueError("The covariance is not finite and symmetric.")
    values, vectors = torch.linalg.eigh((c + c.mT) / 2)
    if float(values.amin()) < -1e-8 * largest:
        raise ValueError(f"The covariance has a negative eigenvalue, {float(values.amin()):.3g}.")
    return values.clamp(min=0), vectors


def _check_single(observation: LinearObservation) -> None:
    if len(observation.y) != 1:
        raise ValueError(
            f"The observation has {len(observation.y)} items; give one item at a time here."
        )


def _linear_model(
    observation: LinearObservation, shape: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Matrices (batch, m, n), data (batch, m) and noise variances (batch, m), in float64."""
    y = observation.y.detach().to("cpu", torch.float64)
    n = shape[0] * shape[1]
    basis = torch.eye(n, dtype=torch.float64, device=observation.y.device).reshape(-1, *shape)
    columns = [observation.operator(e.expand(len(y), *shape)).flatten(1) for e in basis]
    noise = observation.variance.to("cpu", torch.float64).expand(y.shape)
    return torch.stack(columns, -1).cpu(), y.flatten(1), noise.flatten(1)


def _kalman(
    mean: Tensor, covariance: Tensor, matrix: Tensor, y: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Posterior means (batch, n), covariances (batch, n, n) and log-evidences (batch,)."""
    cross = matrix @ covariance
    root = torch.linalg.cholesky(cross @ matrix.mT + torch.diag_embed(noise))
    white = torch.linalg.solve_triangular(root, cross, upper=False)
    r = (y - matrix @ mean).unsqueeze(-1)
    r = torch.linalg.solve_triangular(root, r, upper=False)
    log_det = 2 * root.diagonal(dim1=1, dim2=2).log().sum(1)
    log_evidence = -((r**2).sum((1, 2)) + log_det + y.shape[1] * log(2 * pi)) / 2
    return mean + (white.mT @ r).squeeze(-1), covariance - white.mT @ white, log_evidence
