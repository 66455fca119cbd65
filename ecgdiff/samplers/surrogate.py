r"""The Gaussian surrogate: moment-matching posterior sampling (MMPS) without back-propagation.

With :math:`\hat x_0 = E[x_0 | x_t]` from the network and :math:`\Sigma` the covariance of
:math:`x_0` given :math:`x_t` from a Gaussian model of the prior that knows channels and
frequencies, the conditional law of :math:`x_0` is taken to be the Gaussian with

.. math::
    \hat x_{0|y} = \hat x_0 + \Sigma A^T (R + A \Sigma A^T)^{-1} (y - A \hat x_0), \qquad
    \Sigma_y = \Sigma - \Sigma A^T (R + A \Sigma A^T)^{-1} A \Sigma

and a step from level t to s is the ancestral step that integrates over it,

.. math::
    x_s = c_{lo} (\hat x_{0|y} + \kappa w) + c_{hi} x_t + \tau z, \quad
    w \sim N(0, \Sigma_y), \quad z \sim N(0, I)

with the bridge(s | 0, t). For :math:`\kappa = 1` and a prior that the model describes exactly the
draws are exact at any number of steps; :math:`\kappa = 0` is the plain ancestral step, whose draws
vary too little at few steps. The last step, to s = 0, returns :math:`\hat x_{0|y} + \kappa w`
itself.

References:
    | Learning Diffusion Priors from Observations by Expectation Maximization (Rozet et al., 2024)
    | arXiv:2405.13712
"""

from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from ecgdiff.diffusion.covariance import LeadFrequencyCovariance
from ecgdiff.diffusion.denoiser import Denoiser
from ecgdiff.diffusion.grids import GridKind, time_grid
from ecgdiff.errors import OperatorError
from ecgdiff.operators.base import Observation
from ecgdiff.operators.masks import Mask, RotatedMask
from ecgdiff.random import Generator, normal
from ecgdiff.samplers.base import NFE, Progress, Sampler

__all__ = ["Surrogate"]


@dataclass(frozen=True)
class Surrogate(Sampler):
    r"""Creates a surrogate sampler: one network call per step and never a gradient.

    It needs `denoiser.covariance` and an operator that is a Mask or a RotatedMask.

    Arguments:
        steps: The number of network calls, at least 2.
        spread: The share :math:`\kappa` in [0, 1] of the conditional spread that a step draws; 1
            is calibrated.
        grid: The spacing of the levels, see :func:`ecgdiff.diffusion.grids.time_grid`.
        sigma_min: The lowest noise level of the "rho" and "log-snr" grids, in model units.
        sigma_max: Their highest noise level, in model units; the schedule's if None.
        rtol: The relative residual of the linear solves where a mask or noise varies along time.
            Masks of whole channels are solved directly.
    """

    steps: int = 32
    spread: float = 1.0
    grid: GridKind = "rho"
    sigma_min: float = 0.02
    sigma_max: float | None = None
    rtol: float = 1e-4

    def __post_init__(self) -> None:
        if self.steps < 2:
            raise ValueError(f"Surrogate needs at least 2 steps, got {self.steps}.")
        if not 0 <= self.spread <= 1:
            raise ValueError(f"spread must be in [0, 1], got {self.spread}.")
        if not 0 < self.rtol < 1:
            raise ValueError(f"rtol must be in (0, 1), got {self.rtol}.")

    def nfe(self) -> NFE:
        """The exact number of network calls of one call of the sampler, whatever the batch."""
        return NFE(forward=self.steps, vjp=0)

    def _sample(
        self,
        denoiser: Denoiser,
        observation: Observation,
        shape: tuple[int, int, int],
        generator: Generator,
        progress: Progress,
    ) -> Tensor:
        schedule, y = denoiser.schedule, observation.y
        mask, rotation = _pattern(observation)
        covariance = _model(denoiser, shape, rotation)
        times = time_grid(
            schedule, self.steps, self.grid, sigma_min=self.sigma_min, sigma_max=self.sigma_max
        )
        x = normal(shape, generator, y.dtype, y.device)
        for step, (t, s) in enumerate(pairwise([*times, 0])):
            x0 = denoiser(x, t)
            shift = self._shift(
                covariance.tweedie(float(schedule.sigma(t))),
                observation.residual(x0),
                mask,
                observation.variance,
                generator,
            )
            x0 = x0 + (shift if rotation is None else rotation.mT @ shift)
            c_lo, c_hi, std = schedule.bridge(s, 0, t)
            x = c_lo * x0 + c_hi * x
            if s > 0:
                x = x + std * normal(shape, generator, y.dtype, y.device)
            progress(step + 1, self.steps)
        return x

    def _shift(
        self,
        covariance: LeadFrequencyCovariance,
        residual: Tensor,
        mask: Tensor,
        variance: Tensor,
        generator: Generator,
    ) -> Tensor:
        """The correction of the mean plus spread times w, for one solve."""
        if self.spread == 0:
            return covariance.gain(residual, mask, variance, rtol=self.rtol)
        # A draw for the residual r / spread, times spread, is the correction for r plus spread
        # times w.
        scaled = residual / self.spread
        return self.spread * covariance.condition(
            scaled, mask, variance, generator, rtol=self.rtol
        )


def _pattern(observation: Observation) -> tuple[Tensor, Tensor | None]:
    """The mask of an observation, and the rotation of channels before it, if any."""
    operator, y = observation.operator, observation.y
    if isinstance(operator, Mask):
        return operator.mask.to(y.device), None
    if isinstance(operator, RotatedMask):
        return operator.mask.to(y.device), operator.rotation.to(y)
    raise OperatorError(
        f"Surrogate solves for Mask and RotatedMask, got {type(operator).__name__}; "
        "use a sampler that takes any operator, such as MGPS."
    )


def _model(
    denoiser: Denoiser, shape: tuple[int, int, int], rotation: Tensor | None
) -> LeadFrequencyCovariance:
    """The Gaussian model of the prior for signals of `shape`, in the operator's channels."""
    covariance = denoiser.covariance
    if covariance is None:
        raise OperatorError(
            "Surrogate needs denoiser.covariance, a LeadFrequencyCovariance of the prior, and "
            "found none; fit one with LeadFrequencyCovariance.fit, or use a sampler that needs "
            "none, such as MGPS."
        )
    if covariance.channels != shape[1]:
        raise OperatorError(
            f"denoiser.covariance has {covariance.channels} channels and shape asks for "
            f"{shape[1]}; use the covariance that was fitted to this prior."
        )
    covariance = covariance.for_length(shape[2])
    return covariance if rotation is None else covariance.rotate(rotation)
