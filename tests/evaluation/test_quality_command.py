"""The quality command on a prior that is exact, and on one that copies its training records."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ecgdiff.classifier import Classifier
from ecgdiff.diffusion.covariance import LeadFrequencyCovariance
from ecgdiff.diffusion.gaussian import GaussianPrior
from ecgdiff.diffusion.schedule import Schedule
from ecgdiff.ecg.leads import LEADS_8, LEADS_12
from ecgdiff.errors import DataError
from ecgdiff.evaluation import quality, quality_measures
from ecgdiff.evaluation.quality_records import FoldRecords
from ecgdiff.models.xresnet1d import XResNet1d
from ecgdiff.prior import Prior

pytest.importorskip("plotly")
pytest.importorskip("neurokit2")

SCALE = 0.25


class Few(XResNet1d):
    """Four features instead of 512, so that few records are enough."""

    def features(self, x: Tensor) -> Tensor:
        return torch.stack([x[:, k].square().mean(-1).sqrt() for k in (0, 1, 6, 10)], dim=1)


def covariance() -> LeadFrequencyCovariance:
    """Power that falls with frequency, and leads that differ."""
    f = torch.arange(1000, dtype=torch.float64)
    power = 60 * ((f > 9) & (f < 900)) / (1 + (f / 60) ** 2)
    mix = torch.eye(8, dtype=torch.float64) + 0.4
    return LeadFrequencyCovariance(power[:, None, None] * mix)


def exact() -> Prior:
    schedule = Schedule.linear()
    denoiser = GaussianPrior(torch.zeros(8, 1000), covariance(), schedule)
    return Prior(denoiser, LEADS_8, 100.0, 1000, SCALE, "exact", {"sha256": "0" * 64})


def records(count: int, seed: int, first: int) -> FoldRecords:
    generator = torch.Generator().manual_seed(seed)
    x = covariance().sample((count, 8, 1000), generator) * SCALE
    numbers = np.arange(first, first + count)
    return FoldRecords(x.numpy(), numbers, numbers)


class FakeFolds:
    """Fold 9 and eight training folds of Gaussian records."""

    def __init__(self, root: str, leads: Any) -> None:
        if root == "absent":
            raise DataError("absent/ptbxl_database.csv was not found.")

    def read(self, fold: int) -> FoldRecords:
        return records(48, 100 + fold, 1000 * fold)

    def training(self) -> Iterator[FoldRecords]:
        return (records(10, 100 + fold, 1000 * fold) for fold in range(1, 9))


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality, "load_prior", lambda name: replace(exact(), name=str(name)))
    net = Few(12, 3, layers=(1,)).eval()
    classifier = Classifier(net, LEADS_12, ("a", "b", "c"), 100.0, 250, SCALE, config={})
    monkeypatch.setattr(quality, "load_classifier", lambda name: classifier)
    monkeypatch.setattr(quality, "Folds", FakeFolds)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("quality")


def run(out: Path, *more: str) -> dict[str, Any]:
    base = ["--root", "here", "--draws", "24", "--steps", "16", "--out", str(out), *more]
    assert quality.main(base) == 0
    return json.loads((out / "quality.json").read_text(encoding="utf-8"))


def test_an_exact_prior_looks_like_its_records(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = run(out, "--compare", "other")
    checks = found["acceptance"]
    assert checks["total_variance"]["passed"]
    assert not checks["losses_below"]["passed"]  # the same prior is not below itself
    assert "acceptance NOT passed" in capsys.readouterr().out
    np.testing.assert_allclose(checks["spread"]["ratio"], 1.0, atol=0.1)
    gap, error = (np.array(found["losses"][k]) for k in ("gap", "gap_standard_error"))
    assert (np.abs(gap) < 4 * error).all()
    assert found["losses"]["compare"] == found["losses"]["fold9"]
    distances = {k: found["frechet"][k]["mean"] for k in ("draws", "gaussian", "other_half")}
    assert found["frechet"]["records"] == 24
    assert max(distances.values()) < 5 * min(distances.values())
    assert 0.7 < found["nearest"]["smallest_ratio"] < 1.3
    assert found["records"] == {"fold9": 48, "training": 48, "training_searched": 80}
    assert max(found["spectra"]["distance_db"]) < 2.0
    assert found["command"].startswith("python -m ecgdiff.evaluation.quality --root PTBXL_DIR")
    assert "here" not in found["command"] and str(out) not in found["command"]


def test_the_pages_show_the_numbers(out: Path) -> None:
    found = json.loads((out / "quality.json").read_text(encoding="utf-8"))
    text = (out / "quality.md").read_text(encoding="utf-8")
    assert "Acceptance: NOT passed" in text and "`other`" in text
    assert f"{found['frechet']['draws']['mean']:.4g}" in text
    assert f"{found['losses']['fold9'][3]:.3f}" in text
    for line in text.splitlines():
        assert not line.startswith("|") or line.endswith("|")
    page = (out / "quality.html").read_text(encoding="utf-8")
    assert "Total variance" in page and "plotly.js" in page
    sheets = (out / "draws.html").read_text(encoding="utf-8")
    assert sheets.count("viewBox") == 2 * 24 and "Draw 24" in sheets


def test_a_prior_that_copies_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the draws are training records, scaled and a little noisy."""
    draw = quality_measures.unconditional_draws

    def copying(*args: Any, **kwargs: Any) -> Tensor:
        x = draw(*args, **kwargs)
        train = torch.from_numpy(records(10, 103, 3000).signal) / SCALE
        for k in range(0, len(x), 2):
            x[k] = 0.9 * train[k % 10] + 0.02 * torch.randn(8, 1000)
        return x

    monkeypatch.setattr(quality_measures, "unconditional_draws", copying)
    found = run(tmp_path, "--draws", "20", "--records", "20")["nearest"]
    assert found["smallest_ratio"] < 0.2
    assert found["draws_below_1_percent_of_fold9"] >= 0.4
    for closest in found["closest"]:
        assert closest["draw"] % 2 == 1  # counted from 1
        assert closest["record"] == 3000 + (closest["draw"] - 1) % 10
    assert "Closest" in (tmp_path / "quality.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--root", "absent"], "ptbxl_database.csv was not found"),
        (["--root", "here", "--draws", "15"], "--draws is 15; fewer than 16"),
        (["--root", "here", "--records", "3"], "--records is 3; fewer than 16"),
        (["--root", "here", "--steps", "1"], "--steps is 1"),
    ],
)
def test_errors_say_what_to_do(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert quality.main([*arguments, "--out", str(tmp_path / "new")]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_unknown_and_unfit_priors_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--root", "here", "--out", str(tmp_path / "new")]
    short = replace(exact(), n_samples=256, name="short")
    other = replace(exact(), scale=0.3, name="other")
    priors = {"default": exact(), "short": short, "other": other}
    monkeypatch.setattr(quality, "load_prior", priors.__getitem__)
    assert quality.main([*command, "--prior", "short"]) == 1
    assert "256 samples at 100 Hz" in capsys.readouterr().err
    assert quality.main([*command, "--compare", "other"]) == 1
    assert "cannot be compared" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert quality.main([*command, "--out", str(tmp_path / "file")]) == 1
    assert "file is a file; give a folder" in capsys.readouterr().err
    monkeypatch.undo()
    assert quality.main([*command, "--prior", "nowhere"]) == 1
    assert "no prior 'nowhere'" in capsys.readouterr().err
