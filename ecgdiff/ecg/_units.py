"""Units of voltage: which ones are known, and which may have been taken for another."""

import math

__all__ = ["UNIT_FACTORS", "known_unit", "mistakes"]

# What values are off by if one unit was taken for another.
UNIT_FACTORS = (1e3, 1e6)

_TO_MV = {"v": 1e3, "volt": 1e3, "volts": 1e3, "mv": 1.0, "millivolt": 1.0, "millivolts": 1.0}
_TO_MV |= {"uv": 1e-3, "microvolt": 1e-3, "microvolts": 1e-3}
# Unicode has two micro signs, and files use both.
_MICRO = str.maketrans({"\N{MICRO SIGN}": "u", "\N{GREEK SMALL LETTER MU}": "u"})
_NAMES = {1e-3: "microvolts", 1.0: "millivolts", 1e3: "volts"}


def known_unit(unit: str) -> float | None:
    """Returns how many mV one of this unit is, or None if it is no voltage we know."""
    text = unit.strip().translate(_MICRO)
    # "MV" might be a megavolt.
    return None if text in ("MV", "Mv") else _TO_MV.get(text.lower())


def mistakes(factor: float, stated: float | None) -> list[str]:
    """Lists which unit may have been stated for which, if values times `factor` are right.

    Arguments:
        factor: Such as 1000 for values that are too small.
        stated: The unit that was stated, in mV, or None if that is not known.
    """
    return [
        f"{said} stated for {meant}"
        for unit, said in _NAMES.items()
        for other, meant in _NAMES.items()
        if stated in (None, unit) and math.isclose(other, unit * factor)
    ]
