"""What the quality page is made of: verdicts, losses per record, distributions, halves, paper."""

import re
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from ecgdiff.data import training_set
from ecgdiff.diffusion.gaussian import GaussianPrior
from ecgdiff.diffusion.quality import (
    BANDS,
    denoising_losses,
    record_losses,
    total_variance,
)
from ecgdiff.diffusion.schedule import Schedule
from ecgdiff.ecg.leads import LEADS_8, LEADS_12
from ecgdiff.evaluation import acceptance, quality_records
from ecgdiff.evaluation.distributions import (
    PERCENT,
    amplitudes,
    histogram,
    percentiles,
    rhythms,
    spectra,
)
from ecgdiff.evaluation.draws_page import NOTICE, draws_page, sheet
from ecgdiff.evaluation.quality_records import Folds, halves
from ecgdiff.models.checkpoint import load_checkpoint
from ecgdiff.prior import prior_folder

RNG = np.random.default_rng(0)


def test_losses_of_records_average_to_the_loss_and_to_the_closed_form() -> None:
    """Of N(0, v) the exact denoiser leaves v s^2 / (v + s^2)."""
    variance = torch.linspace(0.2, 3.0, 30, dtype=torch.float64)
    prior = GaussianPrior(torch.zeros(2, 15), torch.diag(variance), Schedule.linear())
    x0 = prior.sample(3000, torch.Generator().manual_seed(0)).float()
    seen = []
    found = record_losses(prior, x0, seed=3, progress=lambda done, total: seen.append(done))
    assert found.shape == (8, 3000) and seen == list(range(1, 9))
    np.testing.assert_allclose(
        found.mean(axis=1), denoising_losses(prior, x0, BANDS, 3), rtol=1e-5
    )
    for loss, sigma in zip(found.mean(axis=1), BANDS, strict=True):
        s2 = float(prior.schedule.sigma(prior.schedule.index(sigma))) ** 2
        expected = float((variance * s2 / (variance + s2)).mean()) * (1 + 1 / s2)
        assert loss == pytest.approx(expected, rel=0.03)


def test_total_variance_of_an_exact_denoiser_is_one_within_its_error() -> None:
    r"""For N(0, v I) the slope's error is s / sqrt(v N), that of the total 2 s sqrt(v) /
    ((v + s^2) sqrt N), of N numbers in all."""
    v, records = 1.5, 4000
    prior = GaussianPrior(torch.zeros(2, 10), v * torch.eye(20), Schedule.linear())
    x0 = prior.sample(records, torch.Generator().manual_seed(1)).float()
    for row in total_variance(prior, x0, seed=2):
        s, root = row["sigma"], np.sqrt(20 * records)
        assert row["slope_error"] == pytest.approx(s / np.sqrt(v) / root, rel=0.1)
        expected = 2 * s * np.sqrt(v) / (v + s**2) / root
        assert row["total_error"] == pytest.approx(expected, rel=0.1)
        assert abs(row["slope"] - 1) < 3.5 * row["slope_error"]
        assert abs(row["total"] - 1) < 3.5 * row["total_error"]
        assert row["mse"] == pytest.approx(v * s**2 / (v + s**2), rel=0.03)


def test_bands_are_those_of_training() -> None:
    """The embedded prior's card was written with the levels of the validation loss."""
    assert load_checkpoint(prior_folder("default"))[0]["acceptance"]["bands"] == list(BANDS)


def test_the_variance_limits_are_three_percent_and_five_for_the_slope_at_thirty() -> None:
    def row(sigma: float, total: float, slope: float) -> dict[str, float]:
        return {"sigma": sigma, "mse": 0.1, "total": total, "slope": slope}

    cases = [
        (row(10.0, 1.029, 0.971), True),
        (row(10.0, 1.031, 1.0), False),
        (row(10.0, 1.0, 1.04), False),
        (row(30.1, 0.971, 1.049), True),
        (row(30.1, 1.04, 1.0), False),
        (row(30.1, 1.0, 0.94), False),
    ]
    judged = acceptance.variance([r for r, _ in cases])
    assert [r["passed"] for r in judged["rows"]] == [passed for _, passed in cases]
    assert not judged["passed"]
    assert acceptance.variance([r for r, passed in cases if passed])["passed"]


def test_the_spread_limits_are_five_five_and_ten_percent() -> None:
    real = RNG.lognormal(size=(400, 3))
    assert acceptance.spread(1.04 * real, real)["passed"]
    assert not acceptance.spread(1.06 * real, real)["passed"]
    high = np.where(real > np.quantile(real, 0.7, axis=0), 1.08 * real, real)
    assert acceptance.spread(high, real)["passed"]
    one_lead = real * np.array([1.0, 1.0, 0.9])
    found = acceptance.spread(one_lead, real)
    assert not found["passed"]
    np.testing.assert_allclose(found["ratio"][1], [1.0, 1.0, 0.9], atol=1e-4)


def test_chance_is_that_of_quantiles_of_samples() -> None:
    """The standard error of the log of a median of n log-normal numbers is sqrt(pi / 2n)."""
    real = np.exp(0.4 * RNG.normal(size=(20_000, 2)))
    found = acceptance.spread_by_chance(real, 300, resamples=400)
    expected = 0.4 * np.sqrt(np.pi / 600)
    np.testing.assert_allclose(found["standard_error"][1], expected, rtol=0.15)
    assert 0 < found["passed"] < 1
    assert acceptance.spread_by_chance(real, 20_000, resamples=20)["passed"] == 1.0


def test_losses_must_be_below_everywhere() -> None:
    other = RNG.uniform(1, 2, size=(3, 500))
    found = acceptance.losses_below(other - 0.1, other)
    assert found["passed"] and max(found["standard_error"]) < 1e-6
    assert not acceptance.losses_below(other - np.array([[0.1], [0.1], [-0.001]]), other)["passed"]


def test_rhythms_are_the_rates_that_were_drawn() -> None:
    pytest.importorskip("neurokit2")
    time = np.arange(1000) / 100

    def lead(beats: np.ndarray) -> np.ndarray:
        return sum(np.exp(-0.5 * ((time - b) / 0.02) ** 2) for b in beats)

    regular = lead(np.arange(0.3, 10, 0.8))
    irregular = lead(np.cumsum(np.tile([0.5, 0.9], 8)))
    rate, variation = rhythms(np.stack([regular, irregular, 0 * time]), 100.0)
    assert rate[0] == pytest.approx(75.0, rel=0.01) and variation[0] < 1
    assert variation[1] == pytest.approx(100 * 0.2 / 0.7, rel=0.1)
    assert np.isnan(rate[2]) and np.isnan(variation[2])


def test_percentiles_and_shares() -> None:
    values = np.append(np.linspace(0, 100, 1001), np.nan)
    assert percentiles(values) == list(map(float, PERCENT))
    assert percentiles(np.full(3, np.nan)) == []
    shares = histogram(np.array([-5.0, 1, 2, 11, 99, np.nan]), (0, 10, 20))
    assert shares == pytest.approx([0.5, 1 / 3], abs=1e-5)
    np.testing.assert_allclose(amplitudes(np.array([[[1.0, -2, 0]], [[4, 4, 5]]])), [[3], [1]])


def test_spectra_of_scaled_signals_are_off_by_their_gain() -> None:
    real = RNG.normal(size=(80, 2, 1000))
    pairs = [(np.arange(40), np.arange(40, 80))]
    found = spectra(0.5 * real[:40], real, 100.0, pairs)
    assert found["distance_db"] == pytest.approx([20 * np.log10(2)] * 2, rel=1e-3)
    assert max(found["half_distance_db"]) < 1.0
    assert np.shape(found["draws"]) == (3, 2, len(found["frequencies"]))
    assert max(found["frequencies"]) <= 45


def test_halves_share_no_patient_and_are_equally_large() -> None:
    patients = RNG.integers(0, 40, size=120)
    pairs = halves(patients, 1000, splits=6)
    assert len({len(side) for pair in pairs for side in pair}) == 1
    for a, b in pairs:
        assert not set(patients[a]) & set(patients[b])
        assert len(set(a)) == len(a) == len(b) > 35
    assert [len(a) for a, _ in halves(patients, 10, splits=2)] == [10, 10]
    assert any(set(a) != set(pairs[0][0]) for a, _ in pairs)


def test_folds_are_preprocessed_as_for_training(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        SimpleNamespace(ecg_id=n, patient_id=n // 2, fold=9, statements=set())
        for n in (5, 12722, 7, 8)
    ]
    samples = RNG.integers(-900, 6000, size=(4, 8, 1000)).astype(np.int16)

    class Data:
        def __init__(self, root: str) -> None: ...

        def rows(self, folds: Any) -> list[Any]:
            return [row for row in rows if row.fold in set(folds)]

        def signals(self, folds: Any, leads: Any) -> tuple[Any, np.ndarray]:
            return [row.ecg_id for row in rows], samples

    monkeypatch.setattr(quality_records, "PTBXL", Data)
    monkeypatch.setattr(training_set, "PTBXL", Data)
    found = Folds("root", LEADS_8).read(9)
    expected, _ = training_set.load_fold_set("root", [9], LEADS_8)
    np.testing.assert_allclose(found.signal, expected.numpy() / 1000, rtol=1e-6)
    assert found.numbers.tolist() == [5, 7, 8] and found.patients.tolist() == [2, 3, 4]


def test_paper_has_its_scale(tmp_path: Any) -> None:
    """A millivolt is 10 mm, a second 25 mm, and every lead stands in its own place."""
    signal = np.zeros((12, 1000))
    signal[LEADS_12.index("V4"), 900] = 1.0  # 1.5 s into the fourth column
    signal[LEADS_12.index("II"), 500] = -0.5  # below column 3 in the strip alone
    text = sheet(signal, 100.0, "Draw 1 < 2", "0.5-42 Hz")
    assert "25 mm/s   10 mm/mV   band 0.5-42 Hz, 100 Hz" in text
    root = ElementTree.fromstring(text)
    lines = [e.get("points") for e in root.iter() if e.tag.endswith("polyline")]
    curves = [
        np.array([p.split(",") for p in line.split()], float)
        for line in lines
        if line.count(" ") > 50
    ]
    assert [len(c) for c in curves] == 12 * [250] + [1000]
    v4, strip = curves[3], curves[-1]
    peak = v4[:, 1].argmin()
    assert v4[0, 1] - v4[peak, 1] == pytest.approx(10.0)
    assert v4[peak, 0] == pytest.approx(9.0 * 25, abs=0.01)
    assert strip[strip[:, 1].argmax(), 0] == pytest.approx(5.0 * 25, abs=0.01)
    assert strip[:, 1].max() - strip[0, 1] == pytest.approx(5.0)
    names = re.findall(r">(I|II|III|aV.|V\d)</text>", text)
    assert sorted(names) == sorted([*LEADS_12, "II"])
    page = tmp_path / "draws.html"
    draws_page(np.stack([signal] * 3), 100.0, ["a", "b", "c"], page, title="Draws & more")
    html = page.read_text(encoding="utf-8")
    assert html.count(NOTICE) == 4 and "Draws &amp; more" in html and "src=" not in html
