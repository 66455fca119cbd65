from itertools import pairwise

import numpy as np
import pytest

from ecgdiff.ecg.leads import LEADS_12
from ecgdiff.plot import paper


def page(layout="3x4", speed=25.0, gain=10.0, **options):
    rows = paper.choose_rows(layout, LEADS_12)
    return paper.lay_out(rows, paper.Scale(speed, gain), **options)


@pytest.mark.parametrize(("speed", "gain"), [(25.0, 10.0), (50.0, 5.0), (12.5, 20.0)])
@pytest.mark.parametrize("layout", paper.LAYOUTS)
def test_a_second_and_a_millivolt_have_their_millimeters(layout, speed, gain):
    sheet = page(layout, speed, gain)
    for segment in sheet.segments:
        second = sheet.x(segment, segment.start + 1) - sheet.x(segment, segment.start)
        millivolt = sheet.y(segment, 1.0) - sheet.y(segment, 0.0)
        assert second == pytest.approx(speed, abs=0.01)
        assert millivolt == pytest.approx(gain, abs=0.01)
        assert sheet.x(segment, segment.start) == pytest.approx(segment.left, abs=0.01)
        assert sheet.x(segment, segment.stop) == pytest.approx(segment.right, abs=0.01)
        assert sheet.y(segment, 0.0) == segment.baseline


def test_3x4_has_the_clinical_order_and_a_rhythm_strip():
    rows = paper.choose_rows("3x4", LEADS_12)
    assert [" ".join(row) for row in rows] == [
        "I aVR V1 V4",
        "II aVL V2 V5",
        "III aVF V3 V6",
        "II",
    ]


@pytest.mark.parametrize("layout", paper.LAYOUTS)
def test_every_layout_has_every_lead_once(layout):
    rows = paper.choose_rows(layout, LEADS_12, rhythm=())
    assert sorted(lead for row in rows for lead in row) == sorted(LEADS_12)


def test_the_leads_of_a_row_follow_each_other_in_time():
    segments = page(start=20.0).segments
    assert [(s.lead, s.start, s.stop) for s in segments[:4]] == [
        ("I", 20.0, 22.5),
        ("aVR", 22.5, 25.0),
        ("V1", 25.0, 27.5),
        ("V4", 27.5, 30.0),
    ]
    assert [s.left for s in segments[:4]] == [0.0, 62.5, 125.0, 187.5]
    assert (segments[-1].start, segments[-1].stop, segments[-1].right) == (20.0, 30.0, 250.0)


@pytest.mark.parametrize("layout", paper.LAYOUTS)
def test_baselines_lie_on_heavy_lines_from_top_to_bottom(layout):
    sheet = page(layout)
    assert all(y % paper.LARGE_BOX == 0 for y in sheet.baselines)
    assert np.allclose(np.diff(sheet.baselines), -sheet.pitch)
    assert sheet.baselines[-1] > 0
    assert sheet.baselines[0] < sheet.top


def test_calibration_pulse_is_one_millivolt_for_200_ms():
    sheet = page()
    for row, baseline in enumerate(sheet.baselines):
        x, y = paper.calibration_pulse(sheet, row)
        assert x[3] - x[2] == pytest.approx(5.0, abs=0.01)
        assert (min(y), max(y)) == (baseline, baseline + 10.0)
        assert sheet.left < min(x)
        assert max(x) < 0


def test_lead_ticks_stand_where_leads_change():
    ticks = paper.lead_ticks(page())
    assert {x for (x, _), _ in ticks} == {62.5, 125.0, 187.5}
    assert len(ticks) == 2 * 3 * 3
    assert paper.lead_ticks(page("12x1")) == []


def test_the_page_grows_for_tall_traces_and_the_scale_stays():
    ordinary, tall = page(), page(above=3.0, below=-2.5)
    assert tall.top - tall.baselines[0] >= 30.0
    assert tall.baselines[-1] >= 25.0
    assert ordinary.top < tall.top
    assert tall.y(tall.segments[0], 1.0) - tall.baselines[0] == 10.0
    # A lost electrode must not make a page of a meter.
    assert page(above=100.0).top - page(above=100.0).baselines[0] < 50.0


def test_rows_follow_what_is_there():
    choose = paper.choose_rows
    assert choose("3x4", ("chest",)) == (("chest",),)
    assert choose("3x4", ("I",), rhythm=()) == (("I",),)
    assert choose("3x4", ("I", "II"), rhythm=("II", "V1")) == (
        ("I", "aVR", "V1", "V4"),
        ("II", "aVL", "V2", "V5"),
        ("II",),
    )
    assert choose("12x1", LEADS_12, rhythm=("II",)) == tuple((lead,) for lead in LEADS_12)


def test_unknown_layout_names_the_known_ones():
    with pytest.raises(ValueError, match="3x4, 6x2, 12x1"):
        paper.choose_rows("4x3", LEADS_12)


@pytest.mark.parametrize("wrong", [0.0, -25.0, float("nan"), float("inf")])
def test_scale_refuses_what_no_paper_has(wrong):
    with pytest.raises(ValueError, match="speed"):
        paper.Scale(speed=wrong)
    with pytest.raises(ValueError, match="gain"):
        paper.Scale(gain=wrong)


@pytest.mark.parametrize("rate", [100.0, 128.0, 360.0, 500.0, 511.6, 1000.0])
def test_sample_ranges_share_no_sample_and_leave_none_out(rate):
    ranges = [paper.sample_range(t, t + 2.5, rate) for t in (0.0, 2.5, 5.0, 7.5)]
    assert ranges[0][0] == 0
    assert all(a[1] == b[0] for a, b in pairwise(ranges))
    assert ranges[-1][1] == np.ceil(10 * rate)
    first, last = paper.sample_range(2.5, 5.0, rate)
    assert first / rate >= 2.5 - 1e-6 and (last - 1) / rate < 5.0
