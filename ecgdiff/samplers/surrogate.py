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

from torch import Tensor

from ecgdiff.diffusion.denoiser import Denoiser
from ecgdiff.diffusion.grids import GridKind
from ecgdiff.errors import OperatorError
from ecgdiff.operators.base import Observation
from ecgdiff.operators.masks import Mask, RotatedMask
from ecgdiff.random import Generator
from ecgdiff.samplers._model import Model, model_of
from ecgdiff.samplers.base import NFE
from ecgdiff.samplers.guided import GuidedDenoiser, GuidedSampler

__all__ = ["Surrogate"]


@dataclass(frozen=True)
class Surrogate(GuidedSampler):
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
        super().__post_init__()
        if not 0 <= self.spread <= 1:
            raise ValueError(f"spread must be in [0, 1], got {self.spread}.")
        if not 0 < self.rtol < 1:
            raise ValueError(f"rtol must be in (0, 1), got {self.rtol}.")

    def nfe(self) -> NFE:
        """The exact number of network calls of one call of the sampler, whatever the batch."""
        return NFE(forward=self.steps, vjp=0)

    def guide(self, denoiser: Denoiser, observation: Observation) -> GuidedDenoiser:
        """The denoiser E[x_0 | x_t, y]; see :class:`ecgdiff.samplers.guided.GuidedSampler`."""
        operator = observation.operator
        if not isinstance(operator, Mask | RotatedMask):
            raise OperatorError(
                f"Surrogate solves for Mask and RotatedMask, got {type(operator).__name__}; use a "
                "sampler that takes any operator, such as MGPS."
            )
        model = model_of(denoiser, observation, self.rtol)
        return _Guided(denoiser, observation, model, self.spread)


class _Guided(GuidedDenoiser):
    """The guided denoiser of the surrogate for one observation."""

    def __init__(
        self, denoiser: Denoiser, observation: Observation, model: Model, spread: float
    ) -> None:
        super().__init__(denoiser, observation)
        self.model, self.spread = model, spread

    def mean(self, x_t: Tensor, t: int) -> Tensor:
        x0, r, here = self._at(x_t, t)
        shift = here.gain(r)
        self.keep(t, r, shift)
        return x0 + shift

    def predict(self, x_t: Tensor, t: int, generator: Generator) -> Tensor:
        if self.spread == 0:
            return self.mean(x_t, t)
        x0, r, here = self._at(x_t, t)
        if self.calls is not None:
            self.keep(t, r, here.gain(r))
        # A draw for the residual r / spread, times spread, is the correction for r plus spread
        # times w.
        return x0 + self.spread * here.condition(r / self.spread, generator)

    def _at(self, x_t: Tensor, t: int) -> tuple[Tensor, Tensor, Model]:
        """The prior's mean, its residual, and the model of what is left open at level t."""
        x0 = self.denoiser(x_t, t)
        here = self.model.at(float(self.schedule.sigma(t)))
        return x0, self.observation.residual(x0), here
