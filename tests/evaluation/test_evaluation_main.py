"""The command from its arguments to its files, on synthetic records and a Gaussian prior."""

import importlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ecgdiff.diffusion.covariance import LeadFrequencyCovariance
from ecgdiff.diffusion.gaussian import GaussianPrior
from ecgdiff.diffusion.schedule import Schedule
from ecgdiff.ecg.leads import LEADS_8
from ecgdiff.errors import DataError
from ecgdiff.evaluation import __main__ as command
from ecgdiff.evaluation import running
from ecgdiff.evaluation.folder import locked
from ecgdiff.evaluation.parquet import read_header, read_rows, write_rows
from ecgdiff.evaluation.records import draw_list, read_list
from ecgdiff.models.checkpoint import save_checkpoint
from ecgdiff.models.unet1d import UNet1d
from ecgdiff.prior import Prior

pytest.importorskip("pyarrow")


@dataclass(frozen=True)
class SmallData:
    """Ten folds of three records, white noise common to all leads."""

    root: str = ""

    def rows(self, folds: Sequence[int]) -> list[Any]:
        return [
            SimpleNamespace(
                ecg_id=10 * f + k,
                patient_id=10 * f + k,
                statements=frozenset({"CRBBB"} if k == 1 else {"NORM"}),
            )
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
        config={"sha256": "abc"},
    )
    monkeypatch.setattr(running, "PTBXL", SmallData)
    monkeypatch.setattr(
        running,
        "load_prior",
        lambda name, precision: SimpleNamespace(**vars(prior), name=Path(name).name),
    )
    draw_list(SmallData().rows([10]), count=3).write(tmp_path / "list.json")
    common = [
        "run",
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
    assert len(keys) == len(set(keys)) == 5 * 3
    document = json.loads((out / "first_figures.json").read_text(encoding="utf-8"))
    assert document["records"]["ecg_ids"] == [100, 101, 102]
    assert document["priors"] == {"default": "abc"}
    methods = document["tasks"]["leads"]["methods"]
    assert list(methods) == ["surrogate:steps=2", "gaussian", "mean", "ridge", "neighbors"]
    assert methods["surrogate:steps=2"]["arguments"]["steps"] == 2
    assert methods["surrogate:steps=2"]["calls"] == {"forward": 2, "vjp": 0}
    assert all("--root PTBXL_DIR" in command for command in document["commands"])
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
    common = ["list", str(tmp_path / "l.json"), "--root", "x"]
    assert command.main(common) == 1
    assert "3 patients, fewer than 100" in capsys.readouterr().err
    assert command.main([*common, "--fold", "9", "--count", "2"]) == 0
    chosen = read_list(tmp_path / "l.json")
    assert (chosen.name, chosen.fold, len(chosen.ecg_ids)) == ("fold9_2", 9, 2)
    assert command.main([*common, "--count", "2", "--conditions"]) == 0
    chosen = read_list(tmp_path / "l.json")
    assert dict(zip(chosen.ecg_ids, chosen.inclusion, strict=True))[101] == 1.0
    assert sorted(chosen.inclusion) == [0.5, 1.0]


def test_samplers_without_controls(arguments: list[str], tmp_path: Path) -> None:
    assert command.main([*arguments, "--limit", "2", "--no-controls"]) == 0
    document = json.loads((tmp_path / "out" / "first_figures.json").read_text(encoding="utf-8"))
    assert list(document["tasks"]["leads"]["methods"]) == ["surrogate:steps=2"]
    assert ["--no-controls" in command for command in document["commands"]] == [True]


def test_a_prior_of_ones_own_has_rows_of_its_own(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([*arguments, "--no-controls"]) == 0
    assert command.main([*arguments, "--no-controls", "--prior", "folder/mine"]) == 0
    rows = read_rows(tmp_path / "out" / "rows.parquet")
    labels = {"surrogate:steps=2", "surrogate:steps=2, prior mine"}
    assert {row["method"] for row in rows} == labels
    assert len(rows) == 6
    header = read_header(tmp_path / "out" / "rows.parquet")
    assert header["priors"] == {"default": "abc", "mine": "abc"}
    capsys.readouterr()
    assert command.main(["table", str(tmp_path / "out"), "--resamples", "10"]) == 0
    assert "| surrogate:steps=2, prior mine |" in capsys.readouterr().out


def test_a_network_of_named_patterns_is_not_shown_lost_leads(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    load, known = running.load_prior, {"hyperparameters": {"patterns": ["half"]}}

    def half(name: str, precision: Literal["float32", "bfloat16"]) -> Prior:
        made = vars(load(name, precision))  # type: ignore[arg-type]
        return Prior(**{**made, "config": {**made["config"], "training": known}})

    monkeypatch.setattr(running, "load_prior", half)
    monkeypatch.setattr(running, "_compute", lambda *_: None)
    assert command.main([*arguments, "--no-controls", "--limit", "1"]) == 0  # it guides a prior
    shown = [*arguments, "--no-controls", "--limit", "1", "--sampler", "conditional:steps=2"]
    for task in ("leads", "precordial", "all"):
        assert command.main([*shown, "--task", task]) == 1
        assert "trained on the patterns half only" in capsys.readouterr().err
    assert command.main([*shown, "--task", "block"]) == 0  # each lead has a half


def test_rows_of_another_precision_are_rows_of_another_method(
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = []
    load = running.load_prior
    monkeypatch.setattr(running, "load_prior", lambda *given: asked.append(given) or load(*given))
    monkeypatch.setattr(running, "slowdown", lambda: 180.0)
    assert command.main([*arguments, "--no-controls"]) == 0
    assert "180" not in capsys.readouterr().err
    assert command.main([*arguments, "--no-controls", "--precision", "bfloat16"]) == 0
    assert asked == [("default", "float32"), ("default", "bfloat16")]
    assert "180 times as slowly in bfloat16" in capsys.readouterr().err
    rows = read_rows(tmp_path / "out" / "rows.parquet")
    assert {r["method"] for r in rows} == {"surrogate:steps=2", "surrogate:steps=2, bfloat16"}
    assert len({r["fingerprint"] for r in rows}) == 2
    header = read_header(tmp_path / "out" / "rows.parquet")
    methods = header["methods"]["leads"]
    assert "precision" not in methods["surrogate:steps=2"]
    assert methods["surrogate:steps=2, bfloat16"]["precision"] == "bfloat16"
    assert ["--precision bfloat16" in line for line in header["commands"]] == [False, True]


@pytest.mark.parametrize("text", ["nothing", "surrogate:stepz=3", "surrogate:steps=0"])
def test_wrong_samplers_are_refused(
    text: str, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([*arguments, "--sampler", text]) == 1
    assert f"error: --sampler {text}" in capsys.readouterr().err


@pytest.mark.parametrize("draws", ["0", "-1", "x"])
def test_wrong_numbers_are_refused(draws: str) -> None:
    with pytest.raises(SystemExit):
        command.main(["run", "--root", "x", "--draws", draws])


def test_parquet_holds_the_journal_and_what_is_known_of_records(
    arguments: list[str], tmp_path: Path
) -> None:
    assert command.main([*arguments, "--no-controls"]) == 0
    assert command.main([*arguments, "--limit", "2"]) == 0  # more methods, fewer records
    out = tmp_path / "out"
    lines = (out / "first_figures.jsonl").read_text(encoding="utf-8").splitlines()
    journal = list(map(json.loads, lines))
    assert len(journal) == 3 + 4 * 2
    found = read_rows(out / "rows.parquet")
    assert [row.pop("statements") for row in found[:2]] == [["NORM"], ["CRBBB"]]
    for row in found:
        row.pop("statements", None)
        assert row.pop("weight") == 1.0
    assert found == journal
    header = read_header(out / "rows.parquet")
    assert len(header["commands"]) == 2
    assert header["records"]["ecg_ids"] == [100, 101, 102]  # the list, whatever the limit
    assert header["settings"]["draws"] == 3


def test_rows_of_other_settings_are_refused_whatever_the_method(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([*arguments, "--no-controls"]) == 0
    other = ["--seed", "1", "--sampler", "ddnm:steps=2", "--no-controls"]
    assert command.main([*arguments[:-2], *other]) == 1
    assert "other settings" in capsys.readouterr().err


def test_a_list_of_all_records_is_not_called_weighted(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = read_list(tmp_path / "list.json")
    replace(chosen, inclusion=(1.0, 1.0, 1.0)).write(tmp_path / "list.json")
    assert command.main([*arguments, "--no-controls"]) == 0
    assert command.main(["table", str(tmp_path / "out"), "--resamples", "9"]) == 0
    text = capsys.readouterr().out
    assert "| surrogate:steps=2 | 3 |" in text
    assert "inclusion" not in text
    assert "taken with certainty" not in text


def test_table_and_figure_of_a_weighted_run(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = read_list(tmp_path / "list.json")
    replace(chosen, inclusion=(0.25, 1.0, 0.25)).write(tmp_path / "list.json")
    noisy = [*arguments, "--no-controls", "--task", "noisy"]
    assert command.main(noisy) == 0
    assert "weighted by their inverse inclusion probability" in capsys.readouterr().out
    rows = str(tmp_path / "out")
    assert command.main(["table", rows, "--resamples", "9", "--task", "noisy"]) == 0
    text = capsys.readouterr().out
    assert text.count("\n| surrogate:steps=2 | 3 |") == 3
    assert "## Spectra, task noisy" in text
    assert text.count("1 taken with certainty, 2 drawn") == 1
    assert "| surrogate:steps=2 | CRBBB | 1 |" in text
    latex = ["--format", "latex", "--out", str(tmp_path / "t.tex"), "--resamples", "9"]
    assert command.main(["table", rows, *latex]) == 0
    assert (tmp_path / "t.tex").read_text(encoding="utf-8").count(r"\begin{tabular}") == 6
    page = tmp_path / "f.html"
    assert command.main(["figure", rows, "--out", str(page), "--resamples", "9"]) == 0
    assert "surrogate:steps=2" in page.read_text(encoding="utf-8")
    assert "noisy: density in V2" in page.read_text(encoding="utf-8")
    assert command.main(["figure", rows, "--out", str(page), "--resamples", "9", "--small"]) == 0
    assert page.stat().st_size < 40_000
    assert command.main(["table", str(tmp_path)]) == 1
    assert "no readable Parquet" in capsys.readouterr().err


def test_ridge_for_the_noisy_lead_is_fitted_to_noisy_leads(
    arguments: list[str], tmp_path: Path
) -> None:
    arguments = [a for a in arguments if a not in ("--sampler", "surrogate:steps=2")]
    assert command.main([*arguments, "--task", "noisy", "--limit", "2"]) == 0
    document = json.loads((tmp_path / "out" / "first_figures.json").read_text(encoding="utf-8"))
    methods = document["tasks"]["noisy"]["methods"]
    assert list(methods) == ["gaussian", "mean", "ridge", "neighbors"]
    assert "12 dB" in methods["ridge"]["arguments"]["disturbed"]
    args = command._parser().parse_args([*arguments, "--task", "all"])
    offered = running._methods(args, SmallData(), running.CHOICES["all"], [])
    assert {n for n, ms in offered.items() if "ridge" in [m.label for m in ms]} == {
        "leads",
        "noisy",
    }
    leads, noisy = (
        next(m for m in offered[n] if m.label == "ridge").controls.ridge
        for n in ("leads", "noisy")
    )
    # All leads are alike: from a clean one the others follow, from a noisy one less of them.
    assert 1.2 * leads.validation_rmse < noisy.validation_rmse


@dataclass(frozen=True)
class Noting(SmallData):
    """Notes which folds signals are asked of."""

    asked: list[tuple[int, ...]] = field(default_factory=list)

    def signals(
        self, folds: Sequence[int], leads: tuple[str, ...] = LEADS_8
    ) -> tuple[NDArray[np.int64], NDArray[np.int16]]:
        self.asked.append(tuple(folds))
        return super().signals(folds, leads)


def test_controls_are_fitted_to_the_training_folds_and_chosen_on_the_ninth(
    arguments: list[str],
) -> None:
    data, args = Noting(), command._parser().parse_args([*arguments, "--task", "all"])
    fitted = {}
    for task, methods in running._methods(args, data, running.CHOICES["all"], []).items():
        for method in methods:
            data.asked.clear()
            running._fit(method)
            if data.asked:  # others share what was fitted
                fitted[task, method.label] = [*data.asked]
    train = [(fold,) for fold in range(1, 9)]
    assert fitted == {
        ("leads", "gaussian"): [*train, (9,)],
        ("leads", "neighbors"): train,
        ("noisy", "ridge"): [*train, (9,)],
    }


def test_missing_folds_stop_the_command_and_fail_no_record(
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def signals(self: SmallData, folds: Sequence[int], leads: tuple[str, ...] = LEADS_8) -> Any:
        raise DataError("records of fold 3 are missing")

    whole = SmallData.signals
    monkeypatch.setattr(
        SmallData, "signals", lambda s, f, leads: (whole if 10 in f else signals)(s, f, leads)
    )
    assert command.main(arguments) == 1
    assert "records of fold 3 are missing" in capsys.readouterr().err
    assert not (tmp_path / "out" / "first_figures.jsonl").exists()


class Fixed:
    """A classifier that is as sure of all."""

    name, config, sampling_rate = "fixed", {"sha256": "f00"}, 100.0
    classes = ("AFIB", "CRBBB", "NORM")

    def probabilities(self, signal: NDArray[np.floating], /) -> NDArray[np.floating]:
        assert signal.shape[1:] == (12, 1000)
        return np.tile([0.1, 0.2, 0.7], (len(signal), 1))


def test_a_classifier_reads_every_draw(
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    module = SimpleNamespace(load_classifier=lambda name: Fixed())
    monkeypatch.setitem(sys.modules, "ecgdiff.classifier", module)
    reading = [*arguments, "--no-controls", "--limit", "2", "--classifier", "fixed"]
    assert command.main(reading) == 0
    row = read_rows(tmp_path / "out" / "rows.parquet")[1]
    assert row["probabilities"] == {
        "draws": {"CRBBB": [0.2] * 3, "AFIB": [0.1] * 3},
        "mean": {"AFIB": 0.1, "CRBBB": 0.2, "NORM": 0.7},
    }
    assert row["statements"] == ["CRBBB"]
    header = read_header(tmp_path / "out" / "rows.parquet")
    assert header["settings"]["reader"] == "fixed f00"
    assert "--classifier fixed" in header["commands"][0]
    assert command.main([*arguments, "--no-controls", "--limit", "2"]) == 1
    assert "other settings" in capsys.readouterr().err


def test_morphology_is_measured_on_request(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("neurokit2")
    measured = [*arguments, "--no-controls", "--morphology"]
    assert command.main([*measured, "--limit", "2"]) == 0
    assert command.main(measured) == 0
    out = tmp_path / "out"
    found = read_rows(out / "rows.parquet")
    lines = (out / "first_figures.jsonl").read_text(encoding="utf-8").splitlines()
    assert [row["shape"] for row in found] == [json.loads(line)["shape"] for line in lines]
    assert len(lines) == 3
    header = read_header(out / "rows.parquet")
    assert header["settings"]["morphology"] is True
    assert all("--morphology" in line for line in header["commands"])
    capsys.readouterr()
    assert command.main(["table", str(out), "--resamples", "9"]) == 0
    text = capsys.readouterr().out
    # The records are white noise, in which there are no beats.
    assert "3 of 3 records, counted as not measured: No beats in the observed lead I" in text
    assert "| surrogate:steps=2 | QRS, ms | 0 | - | - | 100.0 |" in text
    assert text.count("\n## ") == 11
    assert command.main([*arguments, "--no-controls"]) == 1
    assert "other settings" in capsys.readouterr().err


def test_morphology_without_its_library_stops_at_once(
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    assert command.main([*arguments, "--morphology"]) == 1
    assert "pip install 'ecgdiff[ecg]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_stopped_run_says_how_to_go_on(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*args: object, **more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(running, "run", stop)
    assert command.main(arguments) == 130
    assert "run again" in capsys.readouterr().err


def test_another_list_needs_another_folder(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = [*arguments, "--no-controls"]
    assert command.main([*mine, "--limit", "2"]) == 0
    out, chosen = tmp_path / "out", read_list(tmp_path / "list.json")
    before = (out / "first_figures.jsonl").read_bytes()
    others = (
        replace(chosen, ecg_ids=chosen.ecg_ids[:2]),
        replace(chosen, inclusion=(1.0, 1.0, 0.5)),
        replace(chosen, name="other"),
    )
    for other in others:
        other.write(tmp_path / "list.json")
        for path in (out / "rows.parquet", out / "run.json"):
            assert command.main(mine) == 1
            said = capsys.readouterr().err
            assert f"{path} belongs to rows of the list fold10_3 (3 records)" in said
            path.rename(tmp_path / path.name)  # then by run.json alone, as if it was killed
        for path in (out / "rows.parquet", out / "run.json"):
            (tmp_path / path.name).rename(path)
    assert (out / "first_figures.jsonl").read_bytes() == before
    chosen.write(tmp_path / "list.json")
    assert command.main(mine) == 0
    assert len(read_rows(out / "rows.parquet")) == 3


def test_a_limit_changes_no_weight_and_drops_no_row(arguments: list[str], tmp_path: Path) -> None:
    chosen = replace(read_list(tmp_path / "list.json"), inclusion=(0.25, 1.0, 0.5))
    chosen.write(tmp_path / "list.json")
    mine, path = [*arguments, "--no-controls"], tmp_path / "out" / "rows.parquet"
    assert command.main([*mine, "--limit", "1"]) == 0
    assert [row["weight"] for row in read_rows(path)] == [4.0]
    assert command.main(mine) == 0
    assert command.main([*mine, "--limit", "1"]) == 0
    assert [row["weight"] for row in read_rows(path)] == [4.0, 1.0, 2.0]
    assert read_header(path)["records"]["inclusion"] == [0.25, 1.0, 0.5]


def test_the_first_figures_are_those_of_all_methods_of_the_folder(
    arguments: list[str], tmp_path: Path
) -> None:
    assert command.main([*arguments, "--no-controls"]) == 0
    others = [*arguments[:-1], "ddnm:steps=2", "--no-controls", "--limit", "2"]
    assert command.main(others) == 0
    out = tmp_path / "out"
    document = json.loads((out / "first_figures.json").read_text(encoding="utf-8"))
    found = document["tasks"]["leads"]
    assert {m: f["records"] for m, f in found["methods"].items()} == {
        "surrogate:steps=2": 3,
        "ddnm:steps=2": 2,
    }
    assert all(f["arguments"]["steps"] == 2 for f in found["methods"].values())
    assert found["remarks"] == ["`ddnm:steps=2`: 1 of 3 not computed yet."]
    assert len(document["commands"]) == 2
    text = (out / "first_figures.md").read_text(encoding="utf-8")
    assert "| surrogate:steps=2 |" in text and "1 of 3 not computed yet." in text


def test_unets_that_are_named_run_without_the_other_controls(
    arguments: list[str], tmp_path: Path
) -> None:
    folder = tmp_path / "unet"
    net = UNet1d(8, 1, [4, 4], 3)
    half = {k: v.half() if v.ndim == 3 else v for k, v in net.state_dict().items()}
    network = {"channels": 8, "curves": 1, "widths": [4, 4], "kernel": 3}
    config = {"network": network, "levels": [], "scale_mv": 0.236}
    save_checkpoint(folder, config, half, "# a card\n")
    named = [*arguments[:-2], "--no-controls", "--unet", str(folder), "--limit", "2"]
    assert command.main(named) == 0
    assert {row["method"] for row in read_rows(tmp_path / "out" / "rows.parquet")} == {"unet"}
    args = command._parser().parse_args([*named, "--task", "all"])
    offered = running._methods(args, SmallData(), running.CHOICES["all"], [])
    assert {name for name, methods in offered.items() if methods} == {
        "leads",
        "block",
        "precordial",
    }


def test_a_refused_run_leaves_the_notes_of_the_folder_as_they_are(
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    mine, notes = [*arguments, "--no-controls", "--limit", "1"], tmp_path / "out" / "run.json"
    assert command.main(mine) == 0
    before = notes.read_bytes()
    load = running.load_prior
    other = {"config": {"sha256": "another"}}
    monkeypatch.setattr(
        running, "load_prior", lambda *given: SimpleNamespace(**{**vars(load(*given)), **other})
    )
    assert command.main(mine) == 1
    assert "made with other settings (fingerprint" in capsys.readouterr().err
    assert notes.read_bytes() == before


def test_two_runs_do_not_share_a_folder(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("fcntl")
    mine = [*arguments, "--no-controls", "--limit", "1"]
    with locked(tmp_path / "out"):
        assert command.main(mine) == 1
    assert f"Another run is at work in {tmp_path / 'out'}" in capsys.readouterr().err
    assert command.main(mine) == 0


def test_a_run_that_was_killed_keeps_its_settings(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([*arguments, "--no-controls"]) == 0
    (tmp_path / "out" / "rows.parquet").unlink()  # as if it had not come to its end
    capsys.readouterr()
    other = ["--seed", "1", "--sampler", "ddnm:steps=2", "--no-controls"]
    assert command.main([*arguments[:-2], *other]) == 1
    assert "run.json belongs to rows made with other settings" in capsys.readouterr().err


def test_rows_made_before_spectra_were_measured_are_of_another_configuration(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = [*arguments, "--no-controls", "--limit", "2"]
    assert command.main(short) == 0
    out = tmp_path / "out"
    (row, _), header = read_rows(out / "rows.parquet"), read_header(out / "rows.parquet")
    assert "spectra" in row
    assert header["settings"]["spectra"] is True
    assert "--spectra" not in header["commands"][0]  # there is no option to leave them out
    # The folder as it was before: no rows with spectra, and settings that do not speak of them.
    settings = {k: v for k, v in header["settings"].items() if k != "spectra"}
    old = [{k: v for k, v in r.items() if k != "spectra"} for r in read_rows(out / "rows.parquet")]
    write_rows(out / "rows.parquet", old, {**header, "settings": settings})
    (out / "run.json").write_text(json.dumps(settings), encoding="utf-8")
    capsys.readouterr()
    before = (out / "first_figures.jsonl").read_bytes()
    assert command.main(["table", str(out), "--resamples", "5"]) == 0
    shown = capsys.readouterr()
    assert "Spectra" not in shown.out
    assert "note: No spectra of task leads. `surrogate:steps=2`: 2 of 2 made by" in shown.err
    for _ in range(2):  # by its Parquet, then by its run.json
        assert command.main(short) == 1
        said = capsys.readouterr().err
        assert "made with other settings (spectra: not set there, True now)" in said
        assert "Choose another --out" in said
        (out / "rows.parquet").unlink(missing_ok=True)
    assert (out / "first_figures.jsonl").read_bytes() == before


def test_a_run_goes_on_from_kept_rows(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, kept = (tmp_path / name for name in ("out", "second", "kept"))
    assert command.main([*arguments, "--limit", "2"]) == 0
    only = ["--out", str(kept), "--method", "surrogate:steps=2"]
    assert command.main(["keep", str(first), *only]) == 0
    assert capsys.readouterr().out.endswith("kept/leads/surrogate_steps=2.parquet\n")
    made = [r for r in read_rows(first / "rows.parquet") if r["method"] == "surrogate:steps=2"]

    assert command.main(["table", str(kept / "leads" / "surrogate_steps=2.parquet")]) == 0
    assert "surrogate:steps=2" in capsys.readouterr().out

    # Another method of another run meets them.
    mine = [*arguments[:-1], "mmps:steps=2", "--no-controls", "--known", str(kept)]
    mine[mine.index(str(first))] = str(second)
    assert command.main(mine) == 0
    rows = read_rows(second / "rows.parquet")
    assert [r["method"] for r in rows] == ["surrogate:steps=2"] * 2 + ["mmps:steps=2"] * 3
    header = read_header(second / "rows.parquet")
    assert list(header["methods"]["leads"]) == ["surrogate:steps=2", "mmps:steps=2"]
    said = [c.split("--sampler ")[1].split()[0] for c in header["commands"]]
    assert said == ["surrogate:steps=2", "mmps:steps=2"]
    assert f"--known {kept.name} " in header["commands"][1]  # where it lies is its user's own

    # The method itself goes on: of three records one is computed, two are taken as they are.
    same = [*mine, "--sampler", "surrogate:steps=2"]
    assert command.main(same) == 0
    rows = [r for r in read_rows(second / "rows.parquet") if r["method"] == "surrogate:steps=2"]
    assert [r["ecg_id"] for r in rows] == [100, 101, 102]
    for row, earlier in zip(rows, made, strict=False):
        assert row["seconds"] == pytest.approx(earlier["seconds"], rel=2e-4)
        assert "spectra" in earlier
        assert "spectra" not in row
    assert "spectra" in rows[2]
    capsys.readouterr()
    assert command.main(["table", str(second)]) == 0
    assert "`surrogate:steps=2`: 2 of 3 made by a run without spectra." in capsys.readouterr().out


def test_kept_rows_of_other_settings_are_refused(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([*arguments, "--no-controls"]) == 0
    kept = str(tmp_path / "kept")
    assert command.main(["keep", str(tmp_path / "out"), "--out", kept]) == 0
    assert command.main(["keep", str(tmp_path / "out"), "--out", kept, "--method", "dps"]) == 1
    assert "holds no rows of dps; it has surrogate:steps=2" in capsys.readouterr().err
    mine = [*arguments, "--no-controls", "--known", kept]
    mine[mine.index(str(tmp_path / "out"))] = str(tmp_path / "second")
    assert command.main([*mine, "--seed", "1"]) == 1
    assert "surrogate_steps=2.parquet belongs to rows made with other settings" in (
        capsys.readouterr().err
    )
    (path,) = Path(kept).glob("*/*.parquet")
    rows, header = read_rows(path), read_header(path)
    write_rows(path, [{**row, "fingerprint": "older"} for row in rows], header)
    assert command.main(mine) == 1
    assert "another model or other arguments" in capsys.readouterr().err
    assert not (tmp_path / "second" / "first_figures.jsonl").exists()
