"""The methods whose draws are right sample by sample only, and the tables they are kept out of.

Draws of the quantile U-Net are comonotone curves (:mod:`ecgdiff.evaluation.unet`): errors, bands
and ranks of single samples mean what they should, but amplitudes, intervals, spectra and what a
classifier reads belong to no ECG.
"""

from collections.abc import Iterable, Sequence

from ecgdiff.evaluation.journal import Row
from ecgdiff.evaluation.unet import QuantileControl

__all__ = ["LABELS", "left_out", "without"]

LABELS = frozenset({QuantileControl.label})


def without(rows: Sequence[Row]) -> list[Row]:
    """The rows of the methods whose draws can be read as curves."""
    return [row for row in rows if row["method"] not in LABELS]


def left_out(labels: Iterable[str], what: str) -> list[str]:
    """Says why figures are missing: one sentence for each method among some that has none.

    Arguments:
        labels: The methods there are.
        what: What is missing, such as "no spectra".
    """
    return [
        f"`{label}`: {what}, because its draws are right sample by sample but are no ECGs as "
        "curves."
        for label in dict.fromkeys(labels)
        if label in LABELS
    ]
