r"""Covariance-aware diffusion posterior sampling (CA-DPS).

The law of :math:`x_0` given :math:`x_t` is taken to be Gaussian with the denoiser's mean and the
*diagonal* d of the covariance that Tweedie's formula reads off its Jacobian J,

.. math::
    \hat x_0 = D_t(x_t), \qquad \Sigma = \frac{s^2}{\alpha} J, \qquad d = \mathrm{diag}\,\Sigma
        \text{ clipped to } [c_{lo} \sigma^2, c_{hi}], \\
    \hat x_{0|y} = \hat x_0 + \Delta / \max(q, 1), \quad
    \Delta = \frac{s^2}{\alpha} J^T A^T (R + A\, \mathrm{diag}(d)\, A^T)^{-1} (y - A \hat x_0),
    \quad q = \frac{r^T R^{-1} A \Delta}{r^T R^{-1} r},

which is the likelihood gradient of that Gaussian, by one vector-Jacobian product. Its diagonal
comes from central differences of the denoiser along probes v,

.. math::
    \Sigma v \approx \sigma^2\, \frac{D(\alpha (x + h v)) - D(\alpha (x - h v))}{2 h}, \quad
    x = x_t / \alpha, \qquad
    d \approx \mathrm{mean}_k\, v_k \circ \Sigma v_k
    \quad \text{or} \quad \sum_k v_k \circ \Sigma v_k,

the mean for random signs, which is unbiased, and the sum for combs, that is ones every few samples
of one channel, which is right if nearby teeth are not correlated. A diagonal underrates directions
in which the signal is correlated, so the shift overshoots there; q measures it.

References:
    | Enhancing Diffusion Models for Inverse Problems with Covariance-Aware Posterior Sampling
    | (Hamidi and Yang, 2024), arXiv:2412.20045
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from ecgdiff.diffusion._solve import conjugate_gradient
from ecgdiff.diffusion.denoiser import Denoiser
from ecgdiff.diffusion.grids import GridKind
from ecgdiff.errors import OperatorError
from ecgdiff.operators.base import LinearOperator, Observation
from ecgdiff.operators.masks import Mask
from ecgdiff.random import Generator, normal
from ecgdiff.samplers.base import NFE, linear_operator
from ecgdiff.samplers.guided import GuidedDenoiser, GuidedSampler, linearize, shortened
from ecgdiff.samplers.health import Call, overshoot

__all__ = ["CADPS"]

RTOL = 1e-4
"""The relative residual of the solves for operators that are no mask."""

SMALLEST_H = 1e-3
"""The shortest difference step in model units; shorter ones drown in single precision."""

_Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class CADPS(GuidedSampler):
    r"""Creates a CA-DPS sampler, for any linear operator.

    It is biased wherever signals are correlated, since a diagonal carries nothing from one sample
    to the next into the solve. On an ECG-like Gaussian prior of 9 channels the exact diagonal
    missed the posterior mean of lost samples by 0.09 (channels) and 0.25 (a block) prior standard
    deviations at 128 steps, with 0.84 and 0.88 of the posterior's spread; more steps do not help.
    The defaults missed it by 0.04-0.07 and 0.25-0.29 on two such priors, with 0.95-1.07 of the
    spread there and 0.6-0.8 of it on observed samples. Without the cap a lost block diverged at 32
    steps with the exact diagonal, and at 128 steps with the estimated one whatever was lost. MMPS
    has none of this at a smaller cost.

    Arguments:
        steps: The number of levels, at least 2; below 128 the shift of a lost block overshoots.
        probe: Where the diagonal comes from: "rademacher" (random signs, central differences),
            "comb" (combs, central differences) or "vjp" (random signs, exact products by
            vector-Jacobian products on the graph that the shift needs anyway, where forward
            products would need calls of their own; J^T has the diagonal of J).
        probes: The random signs K per step, at least 1; unused for "comb".
        spacing: The samples between the teeth of a comb, at least 1.
        channels: The channels of the signals, at least 1; a step with combs takes 2 * spacing *
            channels network calls.
        h: The difference step in units of sigma, positive; never below 1e-3 model units.
        floor: The smallest variance :math:`c_{lo}`, in units of sigma^2, positive.
        ceiling: The largest variance :math:`c_{hi}`, in squared model units: a few variances of
            the prior.
        cap: Whether shifts that overshoot are divided by q.
        grid: The spacing of the levels, see :func:`ecgdiff.diffusion.grids.time_grid`.
        sigma_min: The lowest noise level of the "rho" and "log-snr" grids, in model units.
        sigma_max: Their highest noise level, in model units; the schedule's if None.
    """

    steps: int = 128
    probe: Literal["rademacher", "comb", "vjp"] = "rademacher"
    probes: int = 4
    spacing: int = 8
    channels: int = 8
    h: float = 0.03
    floor: float = 1e-4
    ceiling: float = 4.0
    cap: bool = True
    grid: GridKind = "uniform"
    sigma_min: float = 0.02
    sigma_max: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.probe not in ("rademacher", "comb", "vjp"):
            raise ValueError(f"probe must be 'rademacher', 'comb' or 'vjp', got {self.probe!r}.")
        for name in ("probes", "spacing", "channels"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        for name in ("h", "floor", "ceiling"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}.")

    def nfe(self) -> NFE:
        """The exact number of network calls of one call of the sampler, whatever the batch."""
        if self.probe == "vjp":
            return NFE(forward=self.steps, vjp=self.steps * (1 + self.probes))
        probes = self.spacing * self.channels if self.probe == "comb" else self.probes
        return NFE(forward=self.steps * (1 + 2 * probes), vjp=self.steps)

    def guide(self, denoiser: Denoiser, observation: Observation) -> GuidedDenoiser:
        """The denoiser E[x_0 | x_t, y]; see :class:`ecgdiff.samplers.guided.GuidedSampler`.

        Called without a generator, it takes for its random signs some that are fixed for each
        level and the same for all items; so it is a function, as ODE solvers need.
        """
        operator = linear_operator(observation, "CADPS")
        channels = operator.adjoint(observation.y).shape[1]
        if self.probe == "comb" and channels != self.channels:
            raise OperatorError(
                f"CADPS was made for combs on {self.channels} channels and the signals of "
                f"{type(operator).__name__} have {channels}; give channels={channels}."
            )
        return _Guided(denoiser, observation, operator, self)


class _Guided(GuidedDenoiser):
    """The guided denoiser of CA-DPS for one observation."""

    def __init__(
        self,
        denoiser: Denoiser,
        observation: Observation,
        operator: LinearOperator,
        settings: CADPS,
    ) -> None:
        super().__init__(denoiser, observation)
        self.operator = operator
        self.settings = settings

    def mean(self, x_t: Tensor, t: int) -> Tensor:
        fixed = torch.Generator().manual_seed(t)
        return self._mean(x_t, t, lambda: _signs((1, *x_t.shape[1:]), fixed, x_t).expand_as(x_t))

    def predict(self, x_t: Tensor, t: int, generator: Generator) -> Tensor:
        return self._mean(x_t, t, lambda: _signs(x_t.shape, generator, x_t))

    def _mean(self, x_t: Tensor, t: int, signs: Callable[[], Tensor]) -> Tensor:
        observation = self.observation
        x0, sigma = linearize(self.denoiser, x_t, t)
        r = observation.residual(x0)
        d = self._variances(x_t, t, sigma, signs)
        shift = sigma(self.operator.adjoint(self._solve(r, d)))
        if not self.settings.cap and self.calls is None:
            return x0 + shift
        q = overshoot(r, self.operator(shift), observation.variance)
        if self.calls is not None:
            low, high = self._limits(t)
            clipped = ((d <= low) | (d >= high)).flatten(1).double().mean(1)
            self.calls.append(Call(float(self.schedule.sigma(t)), q, clipped=clipped))
        return x0 + (shortened(shift, q) if self.settings.cap else shift)

    def _limits(self, t: int) -> tuple[float, float]:
        """The least and the largest variance at a level."""
        return self.settings.floor * float(self.schedule.sigma(t)) ** 2, self.settings.ceiling

    def _variances(self, x_t: Tensor, t: int, sigma: _Map, signs: Callable[[], Tensor]) -> Tensor:
        """The clipped diagonal of Tweedie's covariance, shaped as x_t."""
        settings = self.settings
        h = max(settings.h * float(self.schedule.sigma(t)), SMALLEST_H)
        products = partial(_difference, self.denoiser, x_t, t, h)
        d = self._diagonal(x_t, sigma if settings.probe == "vjp" else products, signs)
        return d.clamp(*self._limits(t))

    def _diagonal(self, x_t: Tensor, product: _Map, signs: Callable[[], Tensor]) -> Tensor:
        """The diagonal of a matrix given by its products, shaped as x_t; it may be negative."""
        settings, total = self.settings, torch.zeros_like(x_t)
        if settings.probe == "comb":
            for v in _combs(x_t, settings.spacing):
                total = total + v * product(v)
            return total
        for _ in range(settings.probes):
            v = signs()
            total = total + v * product(v)
        return total / settings.probes

    def _solve(self, r: Tensor, d: Tensor) -> Tensor:
        """The solution of (R + A diag(d) A^T) v = r."""
        variance = self.observation.variance
        if isinstance(self.operator, Mask):
            return r / (variance + d)
        return conjugate_gradient(
            lambda p: variance * p + self.operator(d * self.operator.adjoint(p)), r, rtol=RTOL
        ).x


def _signs(shape: Sequence[int], generator: Generator, like: Tensor) -> Tensor:
    """Independent signs, +1 or -1, with the dtype and device of `like`."""
    return torch.where(normal(shape, generator, like.dtype, like.device) < 0, -1.0, 1.0).to(like)


def _combs(like: Tensor, spacing: int) -> Iterator[Tensor]:
    """Ones every `spacing` samples of one channel; together they cover each sample once."""
    for channel in range(like.shape[1]):
        for start in range(spacing):
            comb = torch.zeros_like(like)
            comb[:, channel, start::spacing] = 1
            yield comb


def _difference(denoiser: Denoiser, x_t: Tensor, t: int, h: float, v: Tensor) -> Tensor:
    """The product Sigma v by central differences of step h in x_t / alpha."""
    step = float(denoiser.schedule.alpha(t)) * h * v
    with torch.no_grad():
        slope = (denoiser(x_t + step, t) - denoiser(x_t - step, t)) / (2 * h)
    return float(denoiser.schedule.sigma(t)) ** 2 * slope
