r"""Lead names and the algebra of the limb leads.

Three electrodes on the limbs give two independent voltages. With I and II measured, Einthoven's
and Goldberger's definitions fix the other four:

.. math::
    III = II - I, \quad aVR = -(I + II) / 2, \quad aVL = I - II / 2, \quad aVF = II - I / 2.

They hold sample by sample, so any two limb leads determine all six. Leads are always addressed by
name, because their order differs between files.
"""

import re
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "CHEST",
    "LEADS_8",
    "LEADS_9",
    "LEADS_12",
    "LIMB",
    "LIMB_FROM_I_II",
    "canonical",
    "derive_12",
    "limb_contradiction",
]

LIMB = ("I", "II", "III", "aVR", "aVL", "aVF")
PRECORDIAL = ("V1", "V2", "V3", "V4", "V5", "V6")
LEADS_12 = LIMB + PRECORDIAL
LEADS_8 = ("I", "II", *PRECORDIAL)
LEADS_9 = ("I", "II", "III", *PRECORDIAL)

# What a chest strap records is none of the twelve leads, so it has a name of its own.
CHEST = "chest"

LIMB_FROM_I_II: NDArray[np.float64] = np.array(
    [[1.0, 0.0], [0.0, 1.0], [-1.0, 1.0], [-0.5, -0.5], [1.0, -0.5], [-0.5, 1.0]]
)
LIMB_FROM_I_II.flags.writeable = False

_Float = TypeVar("_Float", np.float32, np.float64)
_PREFIX = re.compile(
    r"^(?:mdc[ _]ecg[ _](?:lead|elec[ _]potl)|(?:(?:ecg|ekg)[ _:-]?)?lead|ecg|ekg)[ _:]"
)
_ALIASES = {name.lower(): name for name in (*LEADS_12, CHEST)} | {
    "di": "I",
    "dii": "II",
    "diii": "III",
}


def canonical(name: str) -> str:
    """Finds the standard spelling of a lead name.

    Case, surrounding spaces and the prefixes in use ("Lead I", "ECG V1", "MDC_ECG_LEAD_AVR") do
    not matter. A number alone ("1", "Lead 2") is no lead name: it may be a channel number.

    Arguments:
        name: The name as a file or a user wrote it.

    Returns:
        One of `LEADS_12`, or "chest" for a chest strap.

    Raises:
        ValueError: If the name is none of these.
    """
    text = " ".join(str(name).lower().split())
    found = _ALIASES.get(text) or _ALIASES.get(_PREFIX.sub("", text, count=1).strip())
    if found is None:
        raise ValueError(
            f"Unknown lead {name!r}; known leads are {', '.join(LEADS_12)} and {CHEST}. "
            "Rename it to the lead it is."
        )
    return found


def derive_12(signal_8: NDArray[_Float]) -> NDArray[_Float]:
    """Computes the 12 standard leads from the 8 independent ones.

    Arguments:
        signal_8: Leads in the order of `LEADS_8`, with shape (..., 8, time), in any unit.

    Returns:
        The leads in the order of `LEADS_12`, with shape (..., 12, time), same unit and dtype; NaN
        where a lead that is needed is NaN.

    Raises:
        ValueError: If the last axis but one does not have length 8.
    """
    if signal_8.ndim < 2 or signal_8.shape[-2] != len(LEADS_8):
        raise ValueError(
            f"Expected shape (..., 8, time) for leads {', '.join(LEADS_8)}, got {signal_8.shape}."
        )
    i, ii = signal_8[..., 0, :], signal_8[..., 1, :]
    limb = [i, ii, ii - i, -(i + ii) / 2, i - ii / 2, ii - i / 2]
    return np.concatenate([np.stack(limb, axis=-2), signal_8[..., 2:, :]], axis=-2)


def limb_contradiction(
    signal: NDArray[np.floating], leads: Sequence[str]
) -> tuple[float, str | None]:
    """Measures how far limb leads are from obeying the laws above.

    Arguments:
        signal: Voltages in mV, with shape (leads, time); NaN where not measured.
        leads: Their names.

    Returns:
        The root mean square in mV of what no (I, II) explains, over at least three limb leads at
        times when all of them are measured (0 if there are none), and the lead without which
        least remains, or None.
    """
    rows = [k for k, lead in enumerate(leads) if lead in LIMB]
    if len(rows) < 3:
        return 0.0, None
    names = [leads[k] for k in rows]
    limb = signal[rows].astype(np.float64)
    limb = limb[:, np.isfinite(limb).all(axis=0)]
    if limb.shape[1] == 0:
        return 0.0, None
    without = [_unexplained(np.delete(limb, k, 0), _others(names, k)) for k in range(len(names))]
    return _unexplained(limb, names), names[int(np.argmin(without))]


def _others(names: list[str], k: int) -> list[str]:
    return names[:k] + names[k + 1 :]


def _unexplained(limb: NDArray[np.float64], names: list[str]) -> float:
    matrix = LIMB_FROM_I_II[[LIMB.index(name) for name in names]]
    projection = np.eye(len(names)) - matrix @ np.linalg.pinv(matrix)
    return float(np.sqrt(np.mean((projection @ limb) ** 2)))
