"""The command from its arguments to its files, on synthetic records and a Gaussian prior."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ecgdiff.diffusion.covariance import LeadFrequencyCovariance
from ecgdiff.diffusion.gaussian import GaussianPrior
from ecgdiff.diffusion.schedule import Schedule
from ecgdiff.ecg.leads import LEADS_8
from ecgdiff.evaluation import __main__ as command
from ecgdiff.evaluation.records import draw_list, read_list


@dataclass(frozen=True)
class SmallData:
    """Ten folds of three records, white noise common to all leads."""

    root: str = ""

    def rows(self, folds: Sequence[int]) -> list[Any]:
        return [
            SimpleNamespace(ecg_id=10 * f + k, patient_id=10 * f + k)
            for f in folds
            for k in range(3)
        ]

    def signals(
        self, folds: Sequence[int], leads: tuple[str, ...] = LEADS_8
    ) -> tuple[NDArray[np.int64], NDArray[np.int16]]:
        ids = np.array([row.ecg_id for row in self.rows(folds)])
        common = np.stack([np.random.default_rng(i).normal(size=1000) for i in ids])
        return ids, np.repeat(200 * common[:, None], len(leads), axis=1).astype(np.int16)


@pytest.fixture
def arguments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    lead = 0.1 + 0.9 * torch.eye(8).double()
    covariance = LeadFrequencyCovariance(lead.expand(1000, 8, 8).contiguous())
    prior = SimpleNamespace(
        denoiser=GaussianPrior.from_covariance(covariance, Schedule.linear()),
        leads=LEADS_8,
        n_samples=1000,
        sampling_rate=100.0,
        scale=0.27,
        name="gauss",
        config={"sha256": "abc"},
    )
    monkeypatch.setattr(command, "PTBXL", SmallData)
    monkeypatch.setattr(command, "load_prior", lambda name: prior)
    draw_list(SmallData().rows([10]), count=3).write(tmp_path / "list.json")
    common = [
        "--root",
        "x",
        "--out",
        str(tmp_path / "out"),
        "--records",
        str(tmp_path / "list.json"),
    ]
    return [*common, "--draws", "3", "--task", "leads", "--sampler", "surrogate:steps=2"]


def test_command_writes_and_resumes(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([*arguments, "--limit", "2"]) == 0
    assert command.main(arguments) == 0
    out = tmp_path / "out"
    lines = (out / "first_figures.jsonl").read_text(encoding="utf-8").splitlines()
    keys = [(r["method"], r["ecg_id"]) for r in map(json.loads, lines)]
    assert len(keys) == len(set(keys)) == 4 * 3
    document = json.loads((out / "first_figures.json").read_text(encoding="utf-8"))
    assert document["records"]["ecg_ids"] == [100, 101, 102]
    assert document["priors"] == {"gauss": "abc"}
    methods = document["tasks"]["leads"]["methods"]
    assert list(methods) == ["surrogate:steps=2", "gaussian", "mean", "ridge"]
    assert methods["surrogate:steps=2"]["arguments"]["steps"] == 2
    assert methods["surrogate:steps=2"]["calls"] == {"forward": 2, "vjp": 0}
    assert "--root PTBXL_DIR" in document["command"]
    assert (out / "first_figures.md").read_text(encoding="utf-8") in capsys.readouterr().out


def test_other_seed_needs_another_folder(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([*arguments, "--limit", "2"]) == 0
    assert command.main([*arguments, "--seed", "1"]) == 1
    assert "other settings" in capsys.readouterr().err


def test_list_is_drawn_by_the_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "PTBXL", SmallData)
    assert command.main(["--root", "x", "--write-list", str(tmp_path / "l.json")]) == 1
    assert "3 patients, fewer than 100" in capsys.readouterr().err
    drawn = ["--write-list", str(tmp_path / "l.json"), "--fold", "9", "--count", "2"]
    assert command.main(["--root", "x", *drawn]) == 0
    chosen = read_list(tmp_path / "l.json")
    assert (chosen.name, chosen.fold, len(chosen.ecg_ids)) == ("fold9_2", 9, 2)


def test_samplers_without_controls(arguments: list[str], tmp_path: Path) -> None:
    assert command.main([*arguments, "--limit", "2", "--no-controls"]) == 0
    document = json.loads((tmp_path / "out" / "first_figures.json").read_text(encoding="utf-8"))
    assert list(document["tasks"]["leads"]["methods"]) == ["surrogate:steps=2"]
    assert "--no-controls" in document["command"]


@pytest.mark.parametrize("text", ["nothing", "surrogate:stepz=3", "surrogate:steps=0"])
def test_wrong_samplers_are_refused(
    text: str, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([*arguments, "--sampler", text]) == 1
    assert f"error: --sampler {text}" in capsys.readouterr().err


@pytest.mark.parametrize("draws", ["0", "-1", "x"])
def test_wrong_numbers_are_refused(draws: str) -> None:
    with pytest.raises(SystemExit):
        command.main(["--root", "x", "--draws", draws])
