"""Samplers by name: "mmps", or with settings "mmps:steps=20,iterations=2"."""

import ast
from typing import Any

from ecgdiff.samplers.base import Sampler
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
from ecgdiff.samplers.pgdm import PGDM
from ecgdiff.samplers.reddiff import REDdiff
from ecgdiff.samplers.surrogate import Surrogate

__all__ = ["SAMPLERS", "named_sampler"]

SAMPLERS: dict[str, type[Sampler]] = {
    "cadps": CADPS,
    "conditional": Conditional,
    "daps": DAPS,
    "ddnm": DDNM,
    "diffpir": DiffPIR,
    "ding": DING,
    "dps": DPS,
    "mgdm": MGDM,
    "mgps": MGPS,
    "mmps": MMPS,
    "pgdm": PGDM,
    "reddiff": REDdiff,
    "surrogate": Surrogate,
}


def named_sampler(text: str) -> Sampler:
    """Builds a sampler from "name" or "name:argument=value,...".

    Arguments:
        text: A name of :data:`SAMPLERS`, and settings if others than the defaults are wanted;
            values are Python literals or plain words.

    Raises:
        ValueError: If the name, an argument or its value is unknown.
    """
    name, _, rest = text.partition(":")
    if name not in SAMPLERS:
        raise ValueError(f"Unknown sampler {name!r}; there are {', '.join(sorted(SAMPLERS))}.")
    pairs = [part.partition("=") for part in rest.split(",") if part]
    try:
        return SAMPLERS[name](**{key: _literal(value) for key, _, value in pairs})
    except (TypeError, ValueError) as error:
        raise ValueError(f"The sampler {text!r} cannot be built: {error}") from error


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
