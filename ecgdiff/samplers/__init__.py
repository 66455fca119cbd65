"""Posterior samplers, one file per method; `SAMPLERS` lists them under the paper's name."""

from ecgdiff.samplers.base import NFE, Progress, Sampler
from ecgdiff.samplers.mgps import MGPS
from ecgdiff.samplers.surrogate import Surrogate

__all__ = ["MGPS", "NFE", "SAMPLERS", "Progress", "Sampler", "Surrogate"]

SAMPLERS: dict[str, type[Sampler]] = {"mgps": MGPS, "surrogate": Surrogate}
