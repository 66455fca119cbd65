"""Places that cannot be written are named before anything is computed, in one line."""

import os
from pathlib import Path
from typing import Any

import pytest

from ecgdiff.errors import DataError
from ecgdiff.evaluation import __main__ as evaluation
from ecgdiff.evaluation import classifier, running
from ecgdiff.evaluation.outputs import check_file, check_folder, told
from ecgdiff.experiments import __main__ as experiments


def never(*args: Any, **kwargs: Any) -> Any:
    raise AssertionError("something was computed")


def test_a_file_needs_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_file(tmp_path / "new.md")
    (tmp_path / "old.md").touch()
    check_file(str(tmp_path / "old.md"))
    monkeypatch.chdir(tmp_path)
    check_file("here.md")
    with pytest.raises(DataError, match=f"there is no folder {tmp_path}/nope. Make it"):
        check_file(tmp_path / "nope" / "x")
    with pytest.raises(DataError, match="is a folder; name a file in it"):
        check_file(tmp_path)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(DataError, match="permission denied"):
        check_file(tmp_path / "new.md")


def test_a_folder_may_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_folder(tmp_path)
    check_folder(str(tmp_path / "a" / "b"))
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="file is a file; give a folder"):
        check_folder(tmp_path / "file")
    with pytest.raises(DataError, match=f"x lies in {tmp_path}/file, which is a file"):
        check_folder(tmp_path / "file" / "x")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(DataError, match=f"permission denied in {tmp_path}"):
        check_folder(tmp_path / "a" / "b")


@pytest.mark.parametrize(
    "command",
    [
        "table rows --out {no}/x",
        "figure rows --out {no}/x",
        "readings rows --root r --out {file}/x",
        "keep rows --out {file}",
        "list {no}/x --root r",
        "run --root r --out {file}/x",
    ],
)
def test_the_evaluation_checks_first(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    for module, names in (
        (evaluation, ("read_rows", "report", "PTBXL")),
        (running, ("PTBXL", "read_list")),
    ):
        for name in names:
            monkeypatch.setattr(module, name, never)
    (tmp_path / "file").touch()
    asked = command.format(no=tmp_path / "no", file=tmp_path / "file").split()
    assert evaluation.main(asked) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"error: {tmp_path}") and said.count("\n") == 1


def test_other_commands_check_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(classifier, "evaluate", never)
    monkeypatch.setattr(experiments, "_command", never)
    (tmp_path / "file").touch()
    out = ["--out", str(tmp_path / "file")]
    assert classifier.main(["--root", "r", *out]) == 1
    assert experiments.main(["mixture", *out]) == 1
    said = capsys.readouterr().err
    assert said == 2 * f"error: {tmp_path / 'file'} is a file; give a folder for the results.\n"


def test_what_the_system_refuses_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device", "x")

    monkeypatch.setattr(evaluation, "read_rows", full)
    assert evaluation.main(["table", str(tmp_path)]) == 1
    monkeypatch.setattr(classifier, "evaluate", full)
    assert classifier.main(["--root", "r", "--out", str(tmp_path)]) == 1
    monkeypatch.setattr(experiments, "check_folder", full)
    assert experiments.main(["mixture", "--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err == 3 * "error: [Errno 28] No space left on device: 'x'\n"


@pytest.mark.parametrize(
    ("device", "there", "said"),
    [
        ("cuda", 0, "finds 0); give --device cpu"),
        ("cuda:1", 1, "no such CUDA device"),
        ("banana", 0, "--device banana is no device; give cpu or cuda."),
    ],
)
def test_a_device_that_is_not_there_is_named(
    device: str,
    there: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("pyarrow")
    monkeypatch.setattr(running, "PTBXL", never)
    monkeypatch.setattr("torch.cuda.is_available", lambda: there > 0)
    monkeypatch.setattr("torch.cuda.device_count", lambda: there)
    asked = ["run", "--root", "r", "--out", str(tmp_path / "out"), "--device", device]
    assert evaluation.main(asked) == 1
    shown = capsys.readouterr().err
    assert said in shown and shown.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_result_does_not_tell_where_its_user_keeps_things() -> None:
    assert told("/home/someone/study/rows") == "rows"
    assert told(Path("/home/someone/study/rows")) == "rows"
    for name in ("default", "mine/prior", "8"):
        assert told(name) == name
