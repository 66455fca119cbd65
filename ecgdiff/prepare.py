r"""From a recording to what a prior can be asked about, and back.

The priors model independent leads (I, II, V1-V6). What was measured is therefore written in these
first: two or more limb leads fix I and II by least squares, with the noise that follows (the
quality gate refuses limb leads that contradict each other). One limb lead alone other than I and
II, say III = II - I, measures a direction in the plane of I and II; that plane is then rotated by
an orthogonal Q so that the direction becomes a row of its own, and the rest is a mask as always.

Per row the baseline is removed (:mod:`ecgdiff.ecg.preprocess`), so the prior sees what it was
trained on; `restore` puts the measured samples and the baseline of the measured rows back. A
measured sample therefore returns as it was, at the prior's rate. Synthetic limb leads follow from
Einthoven's law and so carry the baseline of the measured ones.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ecgdiff.ecg.leads import LEADS_8, LEADS_12, LIMB, LIMB_FROM_I_II, canonical, derive_12
from ecgdiff.ecg.preprocess import baseline, clip
from ecgdiff.ecg.recording import Recording
from ecgdiff.errors import OperatorError

__all__ = ["Prepared", "prepare", "restore"]

Noise = float | Mapping[str, float]
LARGEST_NOISE_MV = 1.0
# A shorter measured stretch between gaps cannot tell the ECG from its baseline.
ISLAND_S = 0.5


@dataclass(frozen=True, eq=False)
class Prepared:
    """A recording in the rows of a prior; arrays have the shape (rows, time), voltages are in mV.

    Attributes:
        values: What was measured, without baseline; zero where nothing was.
        mask: True where a row was measured.
        usable: True where, besides, the measured stretch is long enough to tell ECG from baseline;
            only this is shown to the prior.
        sigma: Standard deviation of the measurement noise.
        baseline: What the preprocessing removed; zero in rows without any measured sample.
        rotation: The orthogonal matrix Q from (I, II, V1-V6) to rows, shape (8, 8).
        measured: True where one of the twelve leads was measured or follows from measured leads,
            shape (12, time).
        provenance: One word per lead of the twelve.
        clipped: Samples beyond the preprocessing's limit, which the prior sees clipped.
    """

    values: NDArray[np.float32]
    mask: NDArray[np.bool_]
    usable: NDArray[np.bool_]
    sigma: NDArray[np.float32]
    baseline: NDArray[np.float32]
    rotation: NDArray[np.float64]
    measured: NDArray[np.bool_]
    provenance: tuple[str, ...]
    clipped: int

    @property
    def n_samples(self) -> int:
        """Length in samples at the prior's rate."""
        return int(self.values.shape[1])

    def baseline_12(self) -> NDArray[np.float32]:
        """The baseline of the twelve leads in mV, shape (12, time)."""
        return derive_12(self.rotation.T @ self.baseline).astype(np.float32)

    @property
    def rotated(self) -> bool:
        """Whether rows differ from (I, II, V1-V6)."""
        return not np.array_equal(self.rotation, np.eye(len(self.rotation)))


def prepare(recording: Recording, sampling_rate: float, noise: Noise) -> Prepared:
    """Writes a recording in the rows of a prior over (I, II, V1-V6).

    Arguments:
        recording: Any of the twelve leads at any rate, NaN where lost.
        sampling_rate: The prior's, in Hz; the recording is resampled to it.
        noise: Standard deviation of the measurement noise in mV, one for all or by lead name.

    Raises:
        OperatorError: If the recording cannot be written so: a lead that is none of the twelve, or
            single limb leads of different names at different times.
        ValueError: If the noise is not positive or misses a lead.
    """
    if strange := [lead for lead in recording.leads if lead not in LEADS_12]:
        raise OperatorError(
            f"The recording has the lead {strange[0]!r}, which is none of the twelve. Leave it "
            "out with recording.select(...), or, if you know what a single lead stands for, say "
            "so: recording.with_leads_as('I') (--assume-lead I)."
        )
    recording = recording.without_synthetic().resample(sampling_rate)
    sigma = _noise_by_lead(noise, recording.leads)
    rows = np.full((len(LEADS_8), recording.n_samples), np.nan)
    spread = np.full(rows.shape, max(sigma.values()), dtype=np.float32)
    for row, lead in enumerate(LEADS_8[2:], start=2):
        if lead in recording.leads:
            rows[row], spread[row] = recording.lead(lead), sigma[lead]
    rotation, limb = _limb_rows(recording, sigma, rows, spread)
    measured = np.concatenate([limb, np.isfinite(rows[2:])])
    drift = baseline(rows, sampling_rate)
    filtered = rows - drift
    _, clipped = clip(filtered)
    mask = np.isfinite(rows)
    return Prepared(
        values=np.where(mask, filtered, 0.0).astype(np.float32),
        mask=mask,
        usable=_long_enough(mask, round(ISLAND_S * sampling_rate)),
        sigma=spread,
        baseline=drift,
        rotation=rotation,
        measured=measured,
        provenance=_provenance(recording, measured),
        clipped=clipped,
    )


def restore(
    leads: NDArray[np.floating], prepared: Prepared, start: int = 0
) -> NDArray[np.float32]:
    """Turns draws of the prior's leads into the twelve leads, with the measured samples put back.

    Arguments:
        leads: Draws of (I, II, V1-V6) in mV, shape (draws, 8, time).
        prepared: What was measured.
        start: The sample of the recording at which the draws begin.

    Returns:
        The twelve leads in mV, shape (draws, 12, time). The limb leads obey Einthoven's law
        exactly.
    """
    span = slice(start, start + leads.shape[-1])
    rows = prepared.rotation @ leads.astype(np.float64)
    rows = np.where(prepared.mask[:, span], prepared.values[:, span], rows)
    rows = rows + prepared.baseline[:, span]
    return derive_12(prepared.rotation.T @ rows).astype(np.float32)


def _long_enough(mask: NDArray[np.bool_], length: int) -> NDArray[np.bool_]:
    """The mask without runs shorter than `length` that end in a gap."""
    out = mask.copy()
    for row, kept in zip(mask, out, strict=True):
        edges = np.flatnonzero(np.diff(row, prepend=False, append=False))
        for start, stop in zip(edges[::2], edges[1::2], strict=True):
            if stop - start < min(length, row.size):
                kept[start:stop] = False
    return out


def _noise_by_lead(noise: Noise, leads: tuple[str, ...]) -> dict[str, float]:
    if isinstance(noise, Mapping):
        given = {canonical(lead): float(value) for lead, value in noise.items()}
        if absent := [lead for lead in leads if lead not in given]:
            raise ValueError(f"noise names no value for {', '.join(absent)}; give one, in mV.")
        sigma = {lead: given[lead] for lead in leads}
    else:
        sigma = dict.fromkeys(leads, float(noise))
    if bad := [f"{k}: {v:g}" for k, v in sigma.items() if not 0 < v <= LARGEST_NOISE_MV]:
        raise ValueError(
            f"The noise must be positive and at most {LARGEST_NOISE_MV:g} mV (beyond that nothing "
            f"is left of an ECG; is it in µV?), got {', '.join(bad)}."
        )
    return sigma


def _limb_rows(
    recording: Recording,
    sigma: Mapping[str, float],
    rows: NDArray[np.float64],
    spread: NDArray[np.float32],
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Fills the two limb rows in place; returns the rotation and where limb leads are known."""
    present = [lead for lead in LIMB if lead in recording.leads]
    rotation = np.eye(len(LEADS_8))
    known = np.zeros((len(LIMB), recording.n_samples), dtype=bool)
    if not present:
        return rotation, known
    signal = recording.select(present).signal.astype(np.float64)
    finite = np.isfinite(signal)
    matrix = LIMB_FROM_I_II[[LIMB.index(lead) for lead in present]]
    plane = _plane({present[int(k)] for k in finite[:, finite.sum(0) == 1].argmax(0)})
    rotation[:2, :2] = plane
    codes = np.packbits(finite, axis=0)[0]
    for code in np.unique(codes[finite.any(0)]):
        at = np.flatnonzero(codes == code)
        pattern = finite[:, at[0]]
        inverse = plane @ np.linalg.pinv(matrix[pattern])
        usable = slice(0, 2) if pattern.sum() > 1 else _single(inverse)
        noise = np.array([sigma[lead] for lead in np.array(present)[pattern]])
        rows[usable, at] = (inverse @ signal[np.ix_(pattern, at)])[usable]
        spread[usable, at] = np.linalg.norm(inverse * noise, axis=1)[usable, None]
        names = LIMB if pattern.sum() > 1 else np.array(present)[pattern]
        known[np.ix_(np.array([LIMB.index(str(name)) for name in names]), at)] = True
    return rotation, known


def _plane(single: set[str]) -> NDArray[np.float64]:
    """The rotation of (I, II) with a row along the limb lead that stands alone."""
    oblique = single - {"I", "II"}
    if not oblique:
        return np.eye(2)
    if len(single) > 1:
        raise OperatorError(
            f"Different limb leads stand alone at different times ({', '.join(sorted(single))}). "
            "Reconstruct the stretches one by one, or give up all but one of these leads."
        )
    a, b = LIMB_FROM_I_II[LIMB.index(oblique.pop())]
    plane: NDArray[np.float64] = np.array([[a, b], [-b, a]]) / np.hypot(a, b)
    return plane


def _single(inverse: NDArray[np.float64]) -> slice:
    """The one row that a single limb lead measures."""
    row = int(np.abs(inverse[:, 0]).argmax())
    return slice(row, row + 1)


def _provenance(recording: Recording, measured: NDArray[np.bool_]) -> tuple[str, ...]:
    words = []
    for lead, known in zip(LEADS_12, measured, strict=True):
        itself = (
            lead in recording.leads
            and recording.provenance[recording.leads.index(lead)] == "measured"
            and bool(np.isfinite(recording.lead(lead)).all())
        )
        words.append("synthetic" if not known.all() else "measured" if itself else "derived")
    return tuple(words)
