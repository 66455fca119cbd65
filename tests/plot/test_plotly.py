import subprocess
import sys
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from ecgdiff.ecg.leads import LEADS_12
from ecgdiff.ecg.preprocess import baseline
from ecgdiff.ecg.recording import Recording
from ecgdiff.plot import ecg, write_html
from ecgdiff.plot.plotly import BANNER, MAX_STEPS

pytest.importorskip("plotly")

RATE = 100.0


@dataclass(frozen=True)
class Result:
    """The attributes of a reconstruction that a plot reads."""

    draws: np.ndarray
    measured: np.ndarray
    provenance: tuple[str, ...]
    baseline: np.ndarray
    sampling_rate: float = RATE
    leads: tuple[str, ...] = LEADS_12
    meta: dict[str, Any] = field(default_factory=dict)


def signal(samples=1000):
    """Distinct leads of at most 1 mV, so that nobody can be mistaken for another."""
    time = np.arange(samples) / RATE
    phase = np.arange(12)[:, None]
    return (0.5 * np.sin(2 * np.pi * time + phase) + 0.04 * phase).astype(np.float32)


def reconstruction(measured_leads=("I",), draws=5, samples=1000):
    measured = np.zeros((12, samples), dtype=bool)
    measured[[LEADS_12.index(lead) for lead in measured_leads]] = True
    noise = np.random.default_rng(0).normal(size=(draws, 12, samples)).astype(np.float32)
    values = signal(samples) + 0.1 * np.where(measured, 0, noise)
    words = tuple("measured" if row.all() else "synthetic" for row in measured)
    flat = np.zeros((12, samples), dtype=np.float32)
    return Result(values.astype(np.float32), measured, words, flat)


def traces(figure, kind, visible=True):
    """Returns the traces of one kind, by lead; the rhythm strip comes last and wins."""
    return {
        trace.meta["lead"]: trace
        for trace in figure.data
        if trace.meta and trace.meta["kind"] == kind and (trace.visible in (None, True)) == visible
    }


def note(figure, name):
    return next((a for a in figure.layout.annotations if a.name == name), None)


def labels(figure):
    return {a.name[5:]: a.text for a in figure.layout.annotations if a.name.startswith("lead ")}


def test_no_plotly_before_a_figure_is_made():
    command = "import sys, ecgdiff.plot; sys.exit('plotly' in sys.modules)"
    subprocess.run([sys.executable, "-c", command], check=True, timeout=60)


def test_one_millimeter_is_four_pixels_on_both_axes():
    figure = ecg(Recording(signal(), RATE, LEADS_12))
    layout = figure.layout
    width = layout.width - layout.margin.l - layout.margin.r
    height = layout.height - layout.margin.t - layout.margin.b
    assert width == pytest.approx(4 * np.ptp(layout.xaxis.range))
    assert height == pytest.approx(4 * np.ptp(layout.yaxis.range))
    assert (layout.yaxis.scaleanchor, layout.yaxis.scaleratio) == ("x", 1)
    for axis in (layout.xaxis, layout.yaxis):
        assert (axis.minor.dtick, axis.dtick) == (1, 5)


@pytest.mark.parametrize(("speed", "gain"), [(25.0, 10.0), (50.0, 20.0)])
def test_curves_have_25_mm_per_second_and_10_mm_per_millivolt(speed, gain):
    x = signal()
    figure = ecg(Recording(x, RATE, LEADS_12), rhythm=(), speed=speed, gain=gain)
    curve = traces(figure, "measured")["V5"]
    assert curve.dx * RATE == pytest.approx(speed, abs=0.01)
    assert curve.x0 == pytest.approx(7.5 * speed, abs=0.01)
    row = x[LEADS_12.index("V5"), 750:]
    assert len(curve.y) == 250
    assert np.ptp(np.asarray(curve.y) - gain * row) < 0.01
    assert np.allclose(curve.customdata[:, 0], 7500 + 10 * np.arange(250))
    assert np.allclose(curve.customdata[:, 1], row)
    assert "V5" in curve.hovertemplate


def test_synthetic_leads_and_no_others_are_marked():
    measured = ("I", "V2")
    figure = ecg(reconstruction(measured))
    assert set(labels(figure)) == set(LEADS_12)
    for lead, text in labels(figure).items():
        assert ("SYNTHETIC" in text) == (lead not in measured)
    assert set(traces(figure, "synthetic")) == set(LEADS_12) - set(measured)
    assert set(traces(figure, "measured")) == set(measured)
    assert traces(figure, "measured")["I"].line.color == "#111111"
    assert traces(figure, "synthetic")["V1"].line.color == "#0072B2"
    ground = next(trace for trace in figure.data if trace.name == "synthetic ground")
    assert ground.fillpattern.shape == "/"
    assert np.isnan(ground.x).sum() == 10  # eleven polygons: ten segments and a rhythm strip


def test_a_recording_has_no_mark_band_or_slider():
    figure = ecg(Recording(signal(), RATE, LEADS_12))
    assert not any("SYNTHETIC" in text for text in labels(figure).values())
    assert not any("band" in (trace.name or "") for trace in figure.data)
    assert figure.layout.sliders == ()
    assert "Reconstructed" not in note(figure, "banner").text
    assert "not for clinical or diagnostic purposes" in note(figure, "banner").text


def test_an_exported_reconstruction_keeps_its_mark():
    words = ("measured", *["synthetic"] * 11)
    figure = ecg(Recording(signal(), RATE, LEADS_12, provenance=words))
    assert BANNER in note(figure, "banner").text
    assert "SYNTHETIC" in labels(figure)["V6"]
    assert set(traces(figure, "measured")) == {"I"}


def test_lost_block_is_synthetic_and_the_rest_is_black():
    result = reconstruction(LEADS_12)
    measured = result.measured.copy()
    measured[1, 300:600] = False
    result = replace(
        result, measured=measured, provenance=("measured", "synthetic", *["measured"] * 10)
    )
    figure = ecg(result, rhythm=("II",))
    black = np.asarray(traces(figure, "measured")["II"].y)
    blue = np.asarray(traces(figure, "synthetic")["II"].y)
    assert np.array_equal(np.isfinite(black), measured[1])
    # One sample more on either side, where blue meets black.
    assert np.flatnonzero(np.isfinite(blue)).tolist() == list(range(299, 601))
    ground = next(trace for trace in figure.data if trace.name == "synthetic ground")
    assert np.allclose(ground.x, [75.0, 150.0, 150.0, 75.0], atol=0.01)
    texts = [a.text for a in figure.layout.annotations if a.name == "lead II"]
    assert ["SYNTHETIC" in text for text in texts] == [False, True]  # 0-2.5 s, then 0-10 s
    assert "PARTLY" in texts[1]


def test_the_only_measured_lead_has_its_strip_though_a_stretch_of_it_is_lost():
    whole = reconstruction()
    measured = whole.measured.copy()
    measured[0, 400:600] = False
    result = replace(whole, measured=measured, provenance=("synthetic",) * 12)
    figure = ecg(result)
    texts = [a.text for a in figure.layout.annotations if a.name == "lead I"]
    assert len(texts) == 2 and "PARTLY SYNTHETIC" in texts[1]
    blue = np.asarray(traces(figure, "synthetic")["I"].y)
    assert np.flatnonzero(np.isfinite(blue)).tolist() == list(range(399, 601))


def test_derived_leads_are_black_and_say_so():
    words = ("measured", "measured", *["derived"] * 4, *["measured"] * 6)
    figure = ecg(Recording(signal(), RATE, LEADS_12, provenance=words))
    assert "derived" in labels(figure)["aVF"]
    assert "derived" not in labels(figure)["V1"]
    assert traces(figure, "measured")["aVF"].line.color == "#111111"
    assert "derived" in traces(figure, "measured")["aVF"].hovertemplate


def test_nan_stays_a_gap():
    x = signal()
    x[6, 550:600] = np.nan
    x[3] = np.nan
    figure = ecg(Recording(x, RATE, LEADS_12), rhythm=())
    curve = traces(figure, "measured")["V1"]
    assert np.flatnonzero(np.isnan(curve.y)).tolist() == list(range(50, 100))
    assert curve.connectgaps is False
    assert "aVR" not in traces(figure, "measured")
    assert "no data" in labels(figure)["aVR"]


def test_truth_lies_behind_the_lines_of_the_reconstruction():
    # Neither is drawn with its wander.
    wander = 0.5 * np.sin(np.arange(1000) / 200, dtype=np.float32)
    truth = Recording(signal() + wander, RATE, LEADS_12)
    result = reconstruction()
    result = replace(result, draws=result.draws + wander, baseline=baseline(truth.signal, RATE))
    figure = ecg(result, truth=truth)
    kinds = [trace.meta["kind"] for trace in figure.data if trace.meta]
    assert "truth" in kinds
    assert max(k for k, kind in enumerate(kinds) if kind == "truth") < kinds.index("synthetic")
    assert kinds.index("synthetic") < kinds.index("measured")
    drawn = traces(figure, "truth")
    assert set(drawn) == set(LEADS_12) - {"I"}  # under the black line it would only blur it
    assert drawn["V1"].line.color == "#D55E00"


def test_truth_shows_where_a_measured_line_differs_and_may_have_another_rate():
    truth = Recording(signal(), RATE, LEADS_12).resample(500.0)
    recording = Recording(signal() + 0.2, RATE, LEADS_12)
    drawn = traces(ecg(recording, truth=truth), "truth")
    assert set(drawn) == set(LEADS_12)
    assert drawn["V1"].dx * 500.0 == pytest.approx(25.0)


def test_slider_shows_one_draw_at_a_time():
    result = reconstruction(draws=4)
    figure = ecg(result, draw=2)
    slider = figure.layout.sliders[0]
    assert (slider.active, len(slider.steps)) == (2, 4)
    for number, step in enumerate(slider.steps):
        visible, indices = step.args[0]["visible"], step.args[1]
        shown = [figure.data[i] for i, there in zip(indices, visible, strict=True) if there]
        assert {trace.meta["draw"] for trace in shown} == {number}
        assert len(shown) == 12  # eleven segments and the rhythm strip of lead II
    curve = traces(figure, "synthetic")["II"]
    assert np.allclose(curve.customdata[:, 1], result.draws[2, 1])


def test_many_draws_make_few_steps_and_the_bands_use_all():
    figure = ecg(reconstruction(draws=30), draw=25)
    steps = figure.layout.sliders[0].steps
    assert [step.label for step in steps] == [*map(str, range(1, MAX_STEPS + 1)), "26"]
    assert any(trace.name == "90 % band of 30 draws" for trace in figure.data)
    assert len(figure.to_json()) < 2.5e6


def test_bands_are_the_quantiles_of_the_draws():
    result = reconstruction(draws=200)
    figure = ecg(result, layout="12x1")
    for name, low, high, opacity in (("90 %", 0.05, 0.95, 0.15), ("50 %", 0.25, 0.75, 0.35)):
        band = next(trace for trace in figure.data if (trace.name or "").startswith(name))
        first = np.asarray(band.y)[: np.flatnonzero(np.isnan(band.y))[0]]
        lower, upper = np.quantile(result.draws[:, 1], (low, high), axis=0, method="weibull")
        baseline = traces(figure, "synthetic")["II"].y[0] - 10 * result.draws[0, 1, 0]
        assert np.allclose(first[:1000], baseline + 10 * lower, atol=0.01)
        assert np.allclose(first[1000:][::-1], baseline + 10 * upper, atol=0.01)
        assert band.fillcolor.endswith(f",{opacity})")


def test_few_draws_are_not_said_to_give_a_wider_band_than_they_can():
    names = [trace.name for trace in ecg(reconstruction(draws=10)).data]
    assert "82 % band of 10 draws" in names and "50 % band of 10 draws" in names
    names = [trace.name for trace in ecg(reconstruction(draws=2)).data if trace.name]
    assert [name for name in names if "band" in name] == ["33 % band of 2 draws"]


def test_wander_is_not_drawn():
    plain = reconstruction()
    drift = np.linspace(0, 3, 1000, dtype=np.float32) + np.zeros((12, 1), np.float32)
    wandering = replace(plain, draws=plain.draws + drift, baseline=drift)
    left, right = (traces(ecg(r, layout="12x1"), "synthetic")["V2"].y for r in (plain, wandering))
    assert np.allclose(left, right, atol=0.01)


def test_a_page_of_a_longer_recording_says_which():
    scales = [a.text for a in ecg(reconstruction(samples=3000), start=20).layout.annotations]
    assert any("20-30 s of 30 s" in text for text in scales)
    scales = [a.text for a in ecg(reconstruction()).layout.annotations]
    assert not any(" s of " in text for text in scales)


def test_the_only_measured_lead_has_a_strip():
    whole = [t.meta["lead"] for t in ecg(reconstruction()).data if t.meta and len(t.y) == 1000]
    assert set(whole) == {"II", "I"}
    bare = ecg(reconstruction(), rhythm=())
    assert not any(trace.meta and len(trace.y) == 1000 for trace in bare.data)


def test_banner_title_and_scale_line():
    meta = {"band": "0.5-~45 Hz", "sampler": "MGPS(steps=50)", "seed": 0}
    result = replace(reconstruction(), meta=meta)
    figure = ecg(result, title="Lead <I>")
    assert BANNER in note(figure, "banner").text
    assert "Lead &lt;I&gt;" in note(figure, "title").text
    line = note(figure, "scales").text.replace("&nbsp;", " ")
    assert line == "25 mm/s   10 mm/mV   band 0.5-~45 Hz, 100 Hz"
    assert note(figure, "origin").text == "sampler MGPS, seed 0"
    names = [
        trace.name for trace in figure.data if trace.showlegend and trace.visible is not False
    ]
    assert "measured" in names and "synthetic, draw 1 of 5" in names
    assert note(ecg(reconstruction()), "title") is None


def test_start_chooses_the_page():
    long = Recording(np.tile(signal(), 3), RATE, LEADS_12)
    curve = traces(ecg(long, start=12.0), "measured")["II"]
    assert curve.x0 == 0
    assert curve.customdata[0, 0] == 12_000
    last = traces(ecg(long, start=25.0), "measured")["II"]
    assert len(last.y) == 500
    for start in (-1.0, 30.0):
        with pytest.raises(ValueError, match="lasts 30 s"):
            ecg(long, start=start)


def test_short_and_single_lead_recordings_draw_what_there_is():
    figure = ecg(Recording(signal(400)[:1], RATE, ("I",)))
    assert list(labels(figure)) == ["I"]
    assert len(traces(figure, "measured")["I"].y) == 400
    short = ecg(Recording(signal(400), RATE, LEADS_12), rhythm=())
    assert set(traces(short, "measured")) == {"I", "II", "III", "aVR", "aVL", "aVF"}
    assert "no data" in labels(short)["V6"]


def test_what_leaves_the_page_is_flagged_and_the_rest_is_not():
    x = signal()
    assert not any(
        "clipped" in a.text for a in ecg(Recording(x, RATE, LEADS_12)).layout.annotations
    )
    x[0, 100] = 8.0
    flag = note(ecg(Recording(x, RATE, LEADS_12)), "clipped I")
    assert "clipped at +4.5 mV" in flag.text
    x[0, 100] = 3.0  # the page grows instead
    assert note(ecg(Recording(x, RATE, LEADS_12)), "clipped I") is None


def test_wrong_arguments_say_what_was_found():
    with pytest.raises(ValueError, match=r"draw=5 does not exist; there are 5 \(0 to 4\)"):
        ecg(reconstruction(), draw=5)
    with pytest.raises(TypeError, match="ndarray"):
        ecg(signal())
    with pytest.raises(ValueError, match="no lead to compare"):
        ecg(reconstruction(), truth=Recording(signal()[:1], RATE, ("chest",)))


def test_html_is_self_contained(tmp_path):
    path = tmp_path / "ecg.html"
    write_html(ecg(reconstruction()), path, title="A & B")
    html = path.read_text(encoding="utf-8")
    assert "<title>A &amp; B</title>" in html
    assert html.count(BANNER) == 1
    assert "<footer>ecgdiff: research use only, not for clinical" in html
    for tag in ("<script src", "<link", "<img", "<iframe"):
        assert tag not in html
    assert path.stat().st_size < 6.5e6
