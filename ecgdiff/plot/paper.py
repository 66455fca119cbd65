"""ECG paper: where everything on a page lies, in millimeters, without a drawing library.

    x(t) = x_0 + speed (t - t_0)        25 mm/s unless asked otherwise
    y(v) = y_0 + gain v                 10 mm/mV unless asked otherwise

for a lead that begins at (x_0, t_0) on the row with baseline y_0. No lead is ever scaled by
itself: a tall trace runs over its row as it does on real paper. x grows to the right from the
first sample of the page (the calibration pulses lie at x < 0) and y upward from the lower edge. A
page holds 10 s; the leads of one row follow each other in time.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from numpy.typing import NDArray

from ecgdiff.ecg.leads import LEADS_12

__all__ = [
    "LARGE_BOX",
    "LAYOUTS",
    "PAGE_SECONDS",
    "PULSE_MV",
    "PULSE_SECONDS",
    "SMALL_BOX",
    "STROKE",
    "Page",
    "Scale",
    "Segment",
    "calibration_pulse",
    "choose_rows",
    "lay_out",
    "lead_ticks",
    "sample_range",
]

SMALL_BOX = 1.0
LARGE_BOX = 5.0
STROKE = 0.3
PAGE_SECONDS = 10.0
PULSE_MV = 1.0
PULSE_SECONDS = 0.2

Rows = tuple[tuple[str, ...], ...]
Values = TypeVar("Values", float, NDArray[Any])

LAYOUTS: Mapping[str, Rows] = {
    "3x4": (
        ("I", "aVR", "V1", "V4"),
        ("II", "aVL", "V2", "V5"),
        ("III", "aVF", "V3", "V6"),
    ),
    "6x2": (
        ("I", "V1"),
        ("II", "V2"),
        ("III", "V3"),
        ("aVR", "V4"),
        ("aVL", "V5"),
        ("aVF", "V6"),
    ),
    "12x1": tuple((lead,) for lead in LEADS_12),
}

# Room beyond the outer baselines for ordinary traces, and the most that it grows for tall ones.
_EDGE = 15.0
_LARGEST_EDGE = 45.0
_PULSE_FOOT = 2.0


@dataclass(frozen=True)
class Scale:
    """Creates the scale of a page.

    Arguments:
        speed: Paper speed in mm/s.
        gain: Gain in mm/mV, the same for all leads.

    Raises:
        ValueError: If either is not a positive number.
    """

    speed: float = 25.0
    gain: float = 10.0

    def __post_init__(self) -> None:
        for name, value in (("speed", self.speed), ("gain", self.gain)):
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"The paper {name} is {value}; it must be a positive number.")


@dataclass(frozen=True)
class Segment:
    """One lead on one row between two times.

    Arguments:
        lead: The lead's name.
        row: The row from the top, counted from 0.
        start: The first time in s, counted from the beginning of the recording.
        stop: The time in s at which the next lead takes over.
        left: x of `start` in mm.
        right: x of `stop` in mm.
        baseline: y of 0 mV in mm.
    """

    lead: str
    row: int
    start: float
    stop: float
    left: float
    right: float
    baseline: float


@dataclass(frozen=True)
class Page:
    """A page: its segments and edges in mm.

    Arguments:
        scale: The speed and gain.
        segments: All segments, row by row from left to right.
        baselines: y of 0 mV for each row.
        pitch: The distance between rows in mm.
        left: x of the left edge, negative: the calibration pulses lie there.
        right: x of the right edge.
        top: y of the upper edge; the lower edge is 0.
    """

    scale: Scale
    segments: tuple[Segment, ...]
    baselines: tuple[float, ...]
    pitch: float
    left: float
    right: float
    top: float

    def x(self, segment: Segment, time: Values) -> Values:
        """Returns x in mm of times in s on a segment."""
        return segment.left + self.scale.speed * (time - segment.start)

    def y(self, segment: Segment, voltage: Values) -> Values:
        """Returns y in mm of voltages in mV on a segment."""
        return segment.baseline + self.scale.gain * voltage


def choose_rows(layout: str, present: Collection[str], rhythm: Sequence[str] = ("II",)) -> Rows:
    """Chooses the leads of each row of a page.

    Rows without any lead that is present are left out, so are rhythm strips that would repeat a
    row. Leads outside the layout, such as "chest", get a strip each; a single lead gets one strip
    and nothing else.

    Arguments:
        layout: A key of `LAYOUTS`.
        present: The leads that have samples on this page.
        rhythm: The leads of the 10 s strips under the layout.

    Returns:
        One tuple of lead names for each row, from top to bottom.

    Raises:
        ValueError: If the layout is unknown.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"The layout {layout!r} is unknown; choose one of {', '.join(LAYOUTS)}.")
    if len(present) == 1:
        return (tuple(present),)
    rows = [row for row in LAYOUTS[layout] if any(lead in present for lead in row)]
    placed = {lead for row in LAYOUTS[layout] for lead in row}
    strips = [*rhythm, *(lead for lead in present if lead not in placed)]
    for lead in strips:
        if lead in present and (lead,) not in rows:
            rows.append((lead,))
    return tuple(rows)


def lay_out(
    rows: Rows,
    scale: Scale,
    *,
    start: float = 0.0,
    above: float = 0.0,
    below: float = 0.0,
) -> Page:
    """Places rows of leads on a page of 10 s.

    All baselines fall on heavy lines. The page grows upward and downward for traces that are too
    tall for it; the scale never changes.

    Arguments:
        rows: The leads of each row, see `choose_rows`.
        scale: The speed and gain.
        start: The time at the left end of the page, in s.
        above: The highest voltage of the first row in mV.
        below: The lowest voltage of the last row in mV, negative below the baseline.

    Returns:
        The page.
    """
    pitch = _pitch(len(rows), scale)
    bottom = _edge(-below * scale.gain)
    count = len(rows)
    baselines = tuple(bottom + pitch * (count - 1 - index) for index in range(count))
    segments = []
    for index, (row, baseline) in enumerate(zip(rows, baselines, strict=True)):
        seconds = PAGE_SECONDS / len(row)
        for column, lead in enumerate(row):
            left = column * seconds
            segments.append(
                Segment(
                    lead=lead,
                    row=index,
                    start=start + left,
                    stop=start + left + seconds,
                    left=left * scale.speed,
                    right=(left + seconds) * scale.speed,
                    baseline=baseline,
                )
            )
    margin = PULSE_SECONDS * scale.speed + 2 * _PULSE_FOOT
    return Page(
        scale=scale,
        segments=tuple(segments),
        baselines=baselines,
        pitch=pitch,
        left=-LARGE_BOX * math.ceil(margin / LARGE_BOX),
        right=PAGE_SECONDS * scale.speed,
        top=bottom + pitch * (count - 1) + _edge(above * scale.gain),
    )


def _pitch(rows: int, scale: Scale) -> float:
    """Returns the distance between rows in mm: closer for many rows, wider at high gain."""
    usual = 30.0 if rows <= 5 else 25.0 if rows <= 8 else 20.0
    return LARGE_BOX * math.ceil(usual * max(1.0, scale.gain / 10.0) / LARGE_BOX)


def _edge(reach: float) -> float:
    """Returns the room in mm beyond an outer baseline for a trace that reaches so far."""
    wanted = LARGE_BOX * math.ceil((reach + 2 * SMALL_BOX) / LARGE_BOX)
    return min(max(wanted, _EDGE), _LARGEST_EDGE)


def calibration_pulse(page: Page, row: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns the 1 mV, 200 ms pulse at the left of a row.

    Arguments:
        page: The page.
        row: The row, counted from 0 at the top.

    Returns:
        x and y of its six corners in mm, from left to right.
    """
    width = PULSE_SECONDS * page.scale.speed
    low = page.baselines[row]
    high = low + PULSE_MV * page.scale.gain
    fall = -_PULSE_FOOT
    rise = fall - width
    x = (rise - SMALL_BOX, rise, rise, fall, fall, fall + SMALL_BOX)
    return x, (low, low, high, high, low, low)


def lead_ticks(page: Page) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """Returns the short strokes above and below the trace wherever one lead follows another.

    Arguments:
        page: The page.

    Returns:
        x and y of both ends of each stroke, in mm.
    """
    strokes = []
    for segment in page.segments:
        if segment.left > 0:
            for near, far in ((5.0, 8.0), (-5.0, -8.0)):
                ends = (segment.baseline + near, segment.baseline + far)
                strokes.append(((segment.left, segment.left), ends))
    return strokes


def sample_range(start: float, stop: float, sampling_rate: float) -> tuple[int, int]:
    """Returns the samples with start <= k / sampling_rate < stop as a half-open range.

    Arguments:
        start: The first time in s.
        stop: The time in s that no longer belongs.
        sampling_rate: In Hz.

    Returns:
        The first sample and the one after the last.
    """
    # 1e-6 of a sample: 2.5 s x 500 Hz must not become 1250.0000000000002, rounded up.
    return math.ceil(start * sampling_rate - 1e-6), math.ceil(stop * sampling_rate - 1e-6)
