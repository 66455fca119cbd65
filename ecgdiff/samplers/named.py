"""Samplers by name: "mmps", "mmps:steps=20,iterations=2", or as published: "ddnm.ecg"."""

import ast
import inspect
from collections.abc import Callable
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

_SPELLED = {"true": True, "false": False, "none": None}


def named_sampler(text: str) -> Sampler:
    """Builds a sampler from "name" or "name:argument=value,...".

    Arguments:
        text: A name of :data:`SAMPLERS`, and settings if others than the defaults are wanted;
            values are Python literals, true, false, none or plain words. "name.preset" takes a
            published setting instead of the defaults: a class method of the sampler, with its
            arguments.

    Raises:
        ValueError: If the name, the preset, an argument or its value is unknown, or if a preset
            has a step size in millivolts and `std` is missing.
    """
    full, _, rest = text.partition(":")
    name, _, preset = full.partition(".")
    if name not in SAMPLERS:
        raise ValueError(f"Unknown sampler {name!r}; there are {', '.join(sorted(SAMPLERS))}.")
    make = _preset(name, preset) if preset else SAMPLERS[name]
    pairs = [part.partition("=") for part in rest.split(",") if part]
    given = {key: _literal(value) for key, _, value in pairs}
    known = list(inspect.signature(make).parameters)
    if unknown := [key for key in given if key not in known]:
        raise ValueError(
            f"The sampler {text!r} cannot be built: {full} has no setting {unknown[0]!r}; "
            + (f"it has {', '.join(known)}." if known else "it has none.")
        )
    if preset and "std" in inspect.signature(make).parameters and "std" not in given:
        raise ValueError(
            f"The published setting {full!r} has a step size in mV: add std, the millivolts in "
            f'one model unit of the prior (its scale), as in "{full}:std=0.236".'
        )
    try:
        return make(**given)
    except (TypeError, ValueError) as error:
        raise ValueError(f"The sampler {text!r} cannot be built: {error}") from error


def _preset(name: str, preset: str) -> Callable[..., Sampler]:
    """A published setting of a sampler."""
    kind = SAMPLERS[name]
    known = sorted(key for key, value in vars(kind).items() if isinstance(value, classmethod))
    if preset not in known:
        there_are = f"there are {', '.join(known)}" if known else "it has none"
        raise ValueError(f"Unknown published setting {preset!r} of {name!r}; {there_are}.")
    found: Callable[..., Sampler] = getattr(kind, preset)
    return found


def _literal(text: str) -> Any:
    if text in _SPELLED:
        return _SPELLED[text]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
