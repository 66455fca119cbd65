"""Posterior samplers, one file per method; `SAMPLERS` lists them under the paper's name."""

from ecgdiff.samplers.base import NFE, Progress, Sampler
from ecgdiff.samplers.cadps import CADPS
from ecgdiff.samplers.conditional import Conditional
from ecgdiff.samplers.daps import DAPS
from ecgdiff.samplers.ddnm import DDNM
from ecgdiff.samplers.diffpir import DiffPIR
from ecgdiff.samplers.ding import DING
from ecgdiff.samplers.dps import DPS
from ecgdiff.samplers.mgdm import MGDM
from ecgdiff.samplers.mgps import MGPS
from ecgdiff.samplers.mmps import MMPS
from ecgdiff.samplers.named import SAMPLERS, named_sampler
from ecgdiff.samplers.pgdm import PGDM
from ecgdiff.samplers.reddiff import REDdiff
from ecgdiff.samplers.surrogate import Surrogate

__all__ = [
    "CADPS",
    "DAPS",
    "DDNM",
    "DING",
    "DPS",
    "MGDM",
    "MGPS",
    "MMPS",
    "NFE",
    "PGDM",
    "SAMPLERS",
    "Conditional",
    "DiffPIR",
    "Progress",
    "REDdiff",
    "Sampler",
    "Surrogate",
    "named_sampler",
]
