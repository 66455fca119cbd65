"""What the calls of a slot run beside the training: the look at the machine, the poll."""

import functools
import importlib
import lzma
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "training"))  # the programs are files beside one another, no package
slot_check = importlib.import_module("slot_check")


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiler that traces and differentiates, but makes no code."""
    compiler = functools.partial(torch.compile, backend="aot_eager")
    monkeypatch.setattr(torch, "compile", compiler)


def test_a_machine_with_all_is_fit(cheap: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert slot_check.main(["--device", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = ["device", "program", "lzma", "bfloat16", "compiler"]
    assert [line.split(":")[0] for line in lines] == [*names, "fit"]


def test_what_is_missing_is_named(
    cheap: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError("not here")

    monkeypatch.setattr(torch, "compile", broken)
    assert slot_check.main(["--device", "cpu"]) == 1
    assert capsys.readouterr().out.endswith("no compiler: start with --compile off\n")
    monkeypatch.setattr(lzma, "decompress", broken)
    assert slot_check.main(["--device", "cpu"]) == 1
    assert capsys.readouterr().out.endswith("not fit: lzma, compiler\n")


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """What a slot has written so far, and where a call leaves what comes back."""
    slot, back = tmp_path / "slot", tmp_path / "back"
    (slot / "out" / "weights").mkdir(parents=True)
    back.mkdir()
    (slot / "out" / "weights" / "index.json").write_text("{}")
    (slot / "run.log").write_text("step 1\n")
    return slot, back


def poll(slot: Path, back: Path, seconds: int) -> tuple[float, str]:
    """Seconds that a poll took, and what it printed."""
    command = ["sh", str(ROOT / "training" / "slot_poll.sh"), str(slot), str(seconds), str(back)]
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return time.monotonic() - began, done.stdout


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs Linux")
def test_a_poll_ends_with_the_process(folders: tuple[Path, Path]) -> None:
    slot, back = folders
    # Its name is what is looked for; nobody collects it before the poll has ended.
    process = subprocess.Popen([sys.executable, "-c", "pass", "slot.py"])
    (slot / "pid").write_text(f"{process.pid}\n")
    seconds, said = poll(slot, back, 60)
    assert seconds < 30 and said == "step 1\n"
    assert {path.name for path in back.iterdir()} == {"index.json", "run.log"}
    process.wait()


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs Linux")
def test_a_poll_ends_after_its_time(folders: tuple[Path, Path]) -> None:
    slot, back = folders
    program = "import time; time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", program, "slot.py"])
    (slot / "pid").write_text(f"{process.pid}\n")
    try:
        seconds, _ = poll(slot, back, 1)
    finally:
        process.kill()
        process.wait()
    assert 0.5 < seconds < 30
