r"""The published rules of MGPS: where its midpoints lie and how many gradient steps a fit takes.

The paper counts its K levels from :math:`t_0 = 0` up and its K - 2 moves by a descending index i,
from K - 1 at the noisy end to 2. A sampler of S = K - 1 steps makes the same S - 1 moves; its
move number n, from 0, is :math:`i = K - 1 - n = S - n`.

References:
    | Variational Diffusion Posterior Sampling with Midpoint Guidance (Janati et al., ICLR 2025)
    | arXiv:2410.09945 (settings of the released code where the paper is silent)
"""

import math
from dataclasses import dataclass

__all__ = ["GRADIENT_STEPS", "GradientSteps", "MidpointSwitch", "RisingRate", "fraction_of"]


def fraction_of(level: int, fraction: float) -> int:
    """The midpoint at a fraction of a level, not above it and not below 1."""
    return min(max(math.floor(fraction * level), 1), level)


@dataclass(frozen=True)
class MidpointSwitch:
    r"""Creates a midpoint rule: l = floor(eta t') at noisy levels, l = t' at clean ones.

    Arguments:
        fraction: The fraction :math:`\eta` in [0, 1] above `below`.
        below: The last level t' whose midpoint is t' itself; 500 is for a schedule of 1000 levels.
    """

    fraction: float = 0.5
    below: int = 500

    def __post_init__(self) -> None:
        if not 0 <= self.fraction <= 1:
            raise ValueError(f"fraction must be in [0, 1], got {self.fraction}.")

    def __call__(self, t: int, below: int) -> int:
        """The midpoint of a move from level t to level t', `below`."""
        return below if below <= self.below else fraction_of(below, self.fraction)


@dataclass(frozen=True)
class GradientSteps:
    """Creates a rule for the gradient steps M of a fit; of its parts the first that matches wins.

    Arguments:
        otherwise: M where nothing else matches.
        last: (n, M) for moves of index i <= n: the last n - 1 of them, as i ends at 2.
        first: (n, M) for the first n moves.
        every: (n, M) for moves whose index i is a multiple of n; None for no such moves.
    """

    otherwise: int
    last: tuple[int, int]
    first: tuple[int, int]
    every: tuple[int, int] | None = None

    def __call__(self, move: int, moves: int) -> int:
        """M for a move, numbered from 0 at the noisy end, of `moves` in all."""
        index = moves + 1 - move
        if index <= self.last[0]:
            return self.last[1]
        if move < self.first[0]:
            return self.first[1]
        if self.every is not None and index % self.every[0] == 0:
            return self.every[1]
        return self.otherwise


GRADIENT_STEPS: dict[str, GradientSteps] = {
    "ffhq": GradientSteps(2, last=(20, 2), first=(5, 20), every=(10, 20)),
    "ffhq-ldm": GradientSteps(5, last=(10, 2), first=(5, 20), every=(10, 10)),
    "imagenet": GradientSteps(2, last=(10, 2), first=(5, 20), every=(20, 10)),
    "mixture": GradientSteps(2, last=(20, 2), first=(10, 20), every=(10, 20)),
    "generic": GradientSteps(2, last=(20, 2), first=(10, 10)),
    "ecg-leads": GradientSteps(5, last=(20, 5), first=(10, 10)),
    "ecg-block": GradientSteps(2, last=(20, 2), first=(20, 20)),
}
"""The gradient steps of the released configurations, by data set."""


@dataclass(frozen=True)
class RisingRate:
    r"""Creates the published step size of second fits of lost blocks, larger where it is noisier.

    .. math:: \mathrm{lr}(i) = (10^{-4} + 0.03\,(1 - e^{-c i})) / \mathrm{std}, \qquad
        c = -\ln(0.3) / (0.3 \cdot 999)

    with the published descending index i, here read off the level: i = steps * t / levels, that
    of a uniform grid.

    Arguments:
        steps: The number of levels of the grid.
        std: The millivolts in one model unit.
        levels: The number T of levels of the schedule.
    """

    steps: int
    std: float = 1.0
    levels: int = 1000

    def __call__(self, level: int) -> float:
        """The step size, in model units, of a move that starts at `level`."""
        c = -math.log(0.3) / (0.3 * 999)
        index = self.steps * level / self.levels
        return (1e-4 - 0.03 * math.expm1(-c * index)) / self.std
