r"""The variance-preserving noise schedule and its bridges.

With :math:`\bar a_0 = 1 > \bar a_1 > \dots > \bar a_T > 0` ("alpha-bar") the noisy signal at
level t is

.. math:: x_t = \alpha_t x_0 + s_t \epsilon, \quad \alpha_t = \sqrt{\bar a_t}, \quad s_t = \sqrt{1
- \bar a_t}

and the same signal divided by :math:`\alpha_t` has the variance-exploding noise level
:math:`\sigma_t = s_t / \alpha_t`. Between levels :math:`s \le l \le k`, with
:math:`A = \bar a_l / \bar a_s`, :math:`B = \bar a_k / \bar a_l`, :math:`C = A B`, the bridge
kernel is

.. math::
    q(x_l | x_s, x_k) = N(c_{lo} x_s + c_{hi} x_k, \tau^2 I), \quad
    \tau^2 = \eta^2 \frac{(1 - A)(1 - B)}{1 - C}, \quad
    c_{hi} = \sqrt{\frac{1 - A - \tau^2}{1 - C}}, \quad c_{lo} = \sqrt A - c_{hi} \sqrt C.

:math:`\eta = 1` is the kernel of the forward chain (DDPM), :math:`\eta = 0` the deterministic one
(DDIM); all of them keep the marginals: :math:`c_{hi}^2 (1 - C) + \tau^2 = 1 - A`.

References:
    | Denoising Diffusion Probabilistic Models (Ho et al., 2020), arXiv:2006.11239
    | Denoising Diffusion Implicit Models (Song et al., 2020), arXiv:2010.02502
"""

from dataclasses import dataclass, field
from math import sqrt
from typing import NamedTuple, overload

import torch
from torch import Tensor

__all__ = ["Bridge", "Schedule"]


class Bridge(NamedTuple):
    r"""Coefficients of a bridge: :math:`x_l = c_{lo} x_s + c_{hi} x_k + \mathrm{std} \cdot z`."""

    c_lo: float
    c_hi: float
    std: float


@dataclass(frozen=True, eq=False)
class Schedule:
    r"""Creates a schedule from its signal fractions.

    Arguments:
        alpha_bar: The signal variance fractions :math:`\bar a_t`, with shape (T + 1,); strictly
            decreasing from exactly 1 to a positive number. Kept in float64 on the CPU.

    Raises:
        ValueError: If `alpha_bar` is not such a sequence.
    """

    alpha_bar: Tensor
    _fractions: tuple[float, ...] = field(init=False, repr=False)
    _on_device: dict[torch.device, Tensor] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        a = torch.as_tensor(self.alpha_bar).detach().to("cpu", torch.float64).clone()
        if a.ndim != 1 or len(a) < 2:
            raise ValueError(f"alpha_bar has shape {tuple(a.shape)}; give (T + 1,) values.")
        decreasing = bool((a[1:] < a[:-1]).all())
        if a[0] != 1 or a[-1] <= 0 or not decreasing:
            raise ValueError(
                f"alpha_bar runs from {float(a[0])} to {float(a[-1])}"
                f"{'' if decreasing else ' and does not decrease everywhere'}; "
                "it must start at exactly 1, decrease strictly and stay positive."
            )
        object.__setattr__(self, "alpha_bar", a)
        object.__setattr__(self, "_fractions", tuple(a.tolist()))
        object.__setattr__(self, "_on_device", {a.device: a})

    @classmethod
    def linear(
        cls, steps: int = 1000, beta_min: float = 1e-4, beta_max: float = 0.02
    ) -> "Schedule":
        r"""Creates the schedule :math:`\bar a_k = \prod_{j \le k} (1 - \beta_j)`, beta linear.

        Arguments:
            steps: The number of noise levels T.
            beta_min: The first variance increment.
            beta_max: The last variance increment.
        """
        beta = torch.linspace(beta_min, beta_max, steps, dtype=torch.float64)
        fractions = torch.cumprod(1 - beta, dim=0)
        return cls(torch.cat([torch.ones(1, dtype=torch.float64), fractions]))

    @property
    def T(self) -> int:
        """The noisiest level; levels run from 0 (clean) to T."""
        return len(self._fractions) - 1

    def _at(self, t: int | Tensor) -> Tensor:
        """The signal fractions of levels t, on the device of t."""
        if isinstance(t, int):
            self._check_level(t)
            return self.alpha_bar[t]
        if t.device not in self._on_device:
            with torch.inference_mode(False):  # kept, so it must serve later gradients too
                self._on_device[t.device] = self.alpha_bar.to(t.device)
        return self._on_device[t.device][t]

    def _check_level(self, t: int) -> None:
        if not 0 <= t <= self.T:
            raise ValueError(f"The level {t} is outside 0..{self.T} of the schedule.")

    def alpha(self, t: int | Tensor) -> Tensor:
        r"""Signal factor :math:`\alpha_t = \sqrt{\bar a_t}`, float64, with the shape of t."""
        return self._at(t).sqrt()

    def std(self, t: int | Tensor) -> Tensor:
        r"""Noise factor :math:`s_t = \sqrt{1 - \bar a_t}`, float64, with the shape of t."""
        return (1 - self._at(t)).sqrt()

    def sigma(self, t: int | Tensor) -> Tensor:
        r"""Noise level :math:`\sigma_t = s_t / \alpha_t`, float64, with the shape of t."""
        a = self._at(t)
        return ((1 - a) / a).sqrt()

    @overload
    def index(self, sigma: float) -> int: ...
    @overload
    def index(self, sigma: Tensor) -> Tensor: ...
    def index(self, sigma: float | Tensor) -> int | Tensor:
        r"""The level t whose :math:`\sigma_t` is nearest to `sigma` (the smaller t in a tie).

        Arguments:
            sigma: A noise level, or levels of any shape.

        Returns:
            An integer for a number, a long tensor of the same shape for a tensor.
        """
        levels = self.sigma(torch.arange(self.T + 1))
        wanted = torch.as_tensor(sigma, dtype=torch.float64, device="cpu")
        above = torch.searchsorted(levels, wanted).clamp(1, self.T)
        below = above - 1
        nearest = torch.where(wanted - levels[below] <= levels[above] - wanted, below, above)
        return nearest.to(sigma.device) if isinstance(sigma, Tensor) else int(nearest)

    def bridge(self, l: int, s: int, k: int, eta: float = 1.0) -> Bridge:
        r"""Coefficients of :math:`q(x_l | x_s, x_k)` for levels s <= l <= k.

        Arguments:
            l: The level to draw.
            s: The known cleaner level (0 for a bridge from a prediction of the clean signal).
            k: The known noisier level.
            eta: The stochasticity :math:`\eta`: 1 for the forward chain's own bridge, 0 for the
                deterministic one.

        Returns:
            The coefficients as Python floats: exactly (1, 0, 0) if l = s and (0, 1, 0) if l = k.

        Raises:
            ValueError: If the levels are out of order or outside the schedule, or no kernel has
                this `eta`.
        """
        self._check_level(s)
        self._check_level(k)
        if not s <= l <= k:
            raise ValueError(f"A bridge needs s <= l <= k, got s = {s}, l = {l}, k = {k}.")
        if l == s:
            return Bridge(1.0, 0.0, 0.0)
        if l == k:
            return Bridge(0.0, 1.0, 0.0)
        a_s, a_l, a_k = self._fractions[s], self._fractions[l], self._fractions[k]
        # Differences before quotients: 1 - A loses digits when the levels are close.
        not_a, not_b, not_c = (a_s - a_l) / a_s, (a_l - a_k) / a_l, (a_s - a_k) / a_s
        variance = eta**2 * not_a * not_b / not_c
        if eta < 0 or variance > not_a:
            raise ValueError(
                f"eta = {eta} asks for variance {variance:.3g} at level {l}, which has room for "
                f"{not_a:.3g}; use a smaller non-negative eta."
            )
        if eta == 1:
            c_hi = sqrt(a_k / a_l) * not_a / not_c
            return Bridge(sqrt(a_l / a_s) * not_b / not_c, c_hi, sqrt(variance))
        c_hi = sqrt((not_a - variance) / not_c)
        return Bridge(sqrt(a_l / a_s) - c_hi * sqrt(a_k / a_s), c_hi, sqrt(variance))
