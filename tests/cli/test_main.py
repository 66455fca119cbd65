"""The command line as a user meets it: files, exit codes, messages."""

import json
from pathlib import Path

import numpy as np
import pytest

import ecgdiff
from ecgdiff.classifier import classifier_names
from ecgdiff.cli.main import _parser, main
from ecgdiff.demo import load_truth, watch_csv
from ecgdiff.ecg.leads import LEADS_12
from ecgdiff.ecg.recording import Recording
from ecgdiff.prior import needed_prior
from ecgdiff.samplers import named_sampler

FEW = ["--draws", "2"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's folder, made once."""
    folder = tmp_path_factory.mktemp("demo")
    assert main(["demo", "--out", str(folder), *FEW]) == 0
    return folder


def test_demo_writes_figure_draws_and_record(demo: Path) -> None:
    page = (demo / "demo.html").read_text(encoding="utf-8")
    assert "research use only" in page and "SYNTHETIC" in page and "truth" in page
    assert "<script src=" not in page  # self-contained
    with np.load(demo / "demo_draws.npz") as file:
        draws, leads = file["draws"], tuple(file["leads"])
        meta = json.loads(str(file["meta"]))
    assert draws.shape == (2, 12, 1000) and leads == LEADS_12 and np.isfinite(draws).all()
    assert meta["seed"] == 0 and len(meta["model_sha256"]) == 64
    assert "research use only" in meta["notice"]
    median = ecgdiff.read(demo / "demo_median.hea")
    assert median.provenance == ("measured", *["synthetic"] * 11)
    header = (demo / "demo_median.hea").read_text()
    for word in ("NOT ACQUIRED", "synthetic: II", "seed: 0", "research use only", meta["prior"]):
        assert word in header


def test_demo_keeps_the_watch_lead_and_the_limb_laws(demo: Path) -> None:
    with np.load(demo / "demo_draws.npz") as file:
        draws = file["draws"].astype(np.float64)
    with watch_csv() as path:
        measured = ecgdiff.read(path).resample(100.0).lead("I")
    np.testing.assert_allclose(draws[:, 0], np.broadcast_to(measured, (2, 1000)), atol=1e-6)
    i, ii, iii, avr, avl, avf = (draws[:, k] for k in range(6))
    for gap in (i + iii - ii, avr + (i + ii) / 2, avl - (i - iii) / 2, avf - (ii + iii) / 2):
        assert np.abs(gap).max() < 1e-6


def test_demo_recording_is_one_recording() -> None:
    """The watch file holds lead I of the twelve leads that are drawn as the truth."""
    with watch_csv() as path:
        watch = ecgdiff.read(path)
    assert watch.leads == ("I",) and watch.sampling_rate == 512.0
    truth = load_truth()
    assert truth.leads == LEADS_12
    error = watch.resample(100.0).lead("I") - truth.lead("I")
    assert np.abs(error[10:-10]).max() < 0.02


def test_reconstruct_a_record_that_lost_leads_and_a_block(tmp_path: Path) -> None:
    source = tmp_path / "ward"
    ecgdiff.write(load_truth(), source)
    lost = ["--lost", "V1", "V2", "3.0-5.5"]
    command = ["reconstruct", str(source), "--out", str(tmp_path / "out"), *lost, *FEW]
    assert main(command) == 0
    with np.load(tmp_path / "out" / "ward_draws.npz") as file:
        measured, draws = file["measured"], file["draws"]
    truth = load_truth().signal
    assert not measured[:, 300:550].any() and not measured[6:8].any()
    for draw in draws:
        np.testing.assert_allclose(draw[measured], truth[measured], atol=2e-3)


def test_results_are_not_replaced_unasked(
    demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with watch_csv() as path:
        command = ["reconstruct", str(path), "--out", str(tmp_path), *FEW]
        assert main(command) == 0
        named = capsys.readouterr().out
        assert all(Path(line.split(": ")[1]).is_file() for line in named.splitlines())
        assert main(command) == 1
        assert "--overwrite" in capsys.readouterr().err
        assert main([*command, "--overwrite"]) == 0


def test_refusals_name_the_number_and_have_their_own_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flat = tmp_path / "flat.npz"
    ecgdiff.write(Recording(np.zeros((1, 1000)), 100.0, ("I",)), flat)
    assert main(["reconstruct", str(flat), "--out", str(tmp_path / "out")]) == 3
    assert "flat" in capsys.readouterr().err
    assert not list((tmp_path / "out").iterdir())
    assert main(["reconstruct", str(tmp_path / "absent.csv"), "--out", str(tmp_path)]) == 1
    assert "absent.csv" in capsys.readouterr().err
    with pytest.raises(SystemExit) as usage:
        main(["reconstruct", str(flat)])
    assert usage.value.code == 2
    with pytest.raises(SystemExit):
        main(["reconstruct", str(flat), "--out", "x", "--lost", "a-b"])


def test_read_says_what_is_there_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    with watch_csv() as path:
        assert main(["read", str(path)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["leads"] == ["I"] and found["sampling_rate_hz"] == 512.0
    assert found["refused"] is False and found["measured"] == {"I": 1.0}
    assert found["provenance"] == {"I": "measured"}


def test_what_was_drawn_is_no_evidence(demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file of draws is neither measured, nor reconstructed from, nor read."""
    recording = ecgdiff.read(demo / "demo_median.hea").select(["II", "V1", "V2"])
    ecgdiff.write(recording, path := demo / "only_synthetic.npz")
    assert "0 % measured; synthetic: II V1 V2" in repr(recording)
    assert main(["read", str(path)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["provenance"] == {"II": "synthetic", "V1": "synthetic", "V2": "synthetic"}
    assert found["measured"] == {"II": 0.0, "V1": 0.0, "V2": 0.0}
    assert found["refused"] is True
    for command in (
        ["reconstruct", str(path), "--out", str(demo / "again")],
        ["diagnose", str(path)],
    ):
        assert main(command) == 3
        assert "marked as synthetic" in capsys.readouterr().err
    # Beside a measured lead, those drawn before count as lost.
    assert main(["diagnose", str(demo / "demo_median.hea"), *FEW]) == 0
    assert "reconstructing them first" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["V1", "3-5.5"], ["V1", (3.0, 5.5)]),
        (["v2:1-2", "Lead I"], [("V2", 1.0, 2.0), "I"]),
    ],
)
def test_what_is_lost_is_read(words: list[str], meant: list[object]) -> None:
    options = _parser().parse_args(["diagnose", "x.csv", "--lost", *words])
    assert options.lost == meant


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--lost", "banana"], "'banana' is neither a lead"),
        (["--lost", "V1,V2"], "put spaces between several"),
        (["--lost", "V7:1-2"], "'V7:1-2' is neither"),
        (["--lost", "V1:3"], "'V1:3' is neither"),
        (["--lost", "5.5-3.0"], "ends before it begins"),
        (["--draws", "0"], "'0' is no whole number from 1 on"),
        (["--draws", "2.5"], "'2.5' is no whole number from 1 on"),
    ],
)
def test_arguments_that_make_no_sense_are_usage_errors(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as usage:
        main(["diagnose", "x.csv", *words])
    assert usage.value.code == 2
    assert said in capsys.readouterr().err


def test_nothing_is_drawn_for_a_page_or_a_folder_that_cannot_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with watch_csv() as path:
        asked = ["reconstruct", str(path), "--out"]
        assert main([*asked, str(tmp_path / "out"), "--start", "50"]) == 1
        assert "--start 50 lies outside the recording, which lasts 10 s" in capsys.readouterr().err
        assert not list((tmp_path / "out").iterdir())
        assert main([*asked, str(tmp_path / "file")]) == 1
        assert "is a file; give a folder" in capsys.readouterr().err


def test_diagnose_reconstructs_what_is_missing_and_gives_json(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with watch_csv() as path:
        assert main(["diagnose", str(path), "--json", "--seed", "3", *FEW]) == 0
        recording = ecgdiff.read(path)
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert "reconstructing" in err
    for warning in found["warnings"]:  # each once
        assert err.count(f"ecgdiff: note: {warning}\n") == 1
    assert any("--classifier lead_I" in warning for warning in found["warnings"])
    assert [c["code"] for c in found["conditions"]] == ["CRBBB", "CLBBB", "AFIB", "SBRAD"]
    assert found["draws"] == 2 and found["notice"].startswith("Research use only")
    result = ecgdiff.reconstruct(recording, draws=2, seed=3)
    wanted = ecgdiff.diagnose(result).mean()
    np.testing.assert_allclose([c["probability"] for c in found["conditions"]], wanted, atol=1e-4)


def test_diagnose_reads_a_complete_recording_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    record = Path(ecgdiff.demo.__file__).parent / "record.hea"  # type: ignore[attr-defined]
    assert main(["diagnose", str(record), "--conditions", "AFIB", "NORM", "--rule", "f1"]) == 0
    out, err = capsys.readouterr()
    assert "reconstructing" not in err
    assert "AFIB (atrial fibrillation)" in out and "NORM (normal ECG)" in out
    assert "Read from a recording: no interval" in out and "Research use only" in out
    assert main(["diagnose", str(record), "--lost", "V1", "--conditions", "RBBB"]) == 1
    assert "no statement 'RBBB' (complete right bundle" in capsys.readouterr().err


def test_demo_ends_with_the_conditions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--out", str(tmp_path), *FEW]) == 0
    out = capsys.readouterr().out
    assert out.index("figure: ") < out.index("CRBBB (complete right bundle branch block)")
    read, true = out.split("The same, of the twelve leads that were really measured")
    assert "Read from 2 draws of a reconstruction" in read
    assert "Read from a recording: no interval" in true


def test_info_prints_the_card(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    assert "# Prior `inpainting`" in capsys.readouterr().out
    assert needed_prior(named_sampler("conditional")) == "inpainting"
    assert main(["info", "--prior", "default"]) == 0
    card = capsys.readouterr().out
    for word in ("PTB-XL", "Total-variance", "esearch use only", "mV"):
        assert word in card
    assert classifier_names() == ["default", "lead_I"]
    for name in classifier_names():
        assert main(["info", "--classifier", name]) == 0
        assert f"# Classifier `{name}`" in capsys.readouterr().out
