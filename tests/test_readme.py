"""What the documents show must run: Python blocks, commands, links, and the numbers in tables."""

import json
import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import pytest

from ecgdiff.cli.main import _parser
from ecgdiff.ecg.quality import NAMES
from ecgdiff.errors import DataError
from ecgdiff.evaluation.__main__ import _parser as _evaluation_parser
from ecgdiff.evaluation.readme import filled, section
from ecgdiff.samplers import SAMPLERS, named_sampler

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
DOCUMENTS = (
    README,
    ROOT / "CHANGELOG.md",
    ROOT / "training" / "README.md",
    ROOT / "results" / "README.md",
    ROOT / "results" / "benchmark" / "README.md",
    ROOT / "tests" / "crosscheck" / "README.md",
)
FENCE = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


def blocks(path: Path, *languages: str) -> list[str]:
    text = path.read_text(encoding="utf-8")
    return [body for _, language, body in FENCE.findall(text) if language in languages]


def commands() -> list[list[str]]:
    """The words of every command shown, without the blocks' indentation and comments."""
    found = []
    for path in DOCUMENTS:
        for body in blocks(path, "bash", "console"):
            for line in body.replace("\\\n", " ").splitlines():
                words = shlex.split(line.removeprefix("$ "), comments=True)
                found += [words] if words else []
    return found


COMMANDS = commands()


def shown(*start: str) -> list[list[str]]:
    """The commands that begin so, without these words."""
    return [words[len(start) :] for words in COMMANDS if words[: len(start)] == list(start)]


def test_python_blocks_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they stand, but for the number of draws."""
    monkeypatch.chdir(tmp_path)
    code = blocks(README, "python")
    assert len(code) >= 5
    space: dict[str, object] = {"__name__": "readme"}
    for number, body in enumerate(code, start=1):
        exec(compile(body.replace("draws=10", "draws=2"), f"README block {number}", "exec"), space)
    assert {path.name for path in tmp_path.iterdir()} >= {"ecg.html", "ecg_median.hea", "ecgs"}
    assert space["draws"].shape == (2, 12, 1000)  # type: ignore[attr-defined]
    means, x = space["means"], space["x"]
    assert (means(x.sign()) == means(space["truth"])).all()  # type: ignore[attr-defined,operator]
    report = space["report"]
    assert not report.findings  # type: ignore[attr-defined]


def test_ecgdiff_commands_parse() -> None:
    lines = shown("ecgdiff")
    assert len(lines) >= 6
    for words in lines:
        options = _parser().parse_args(words)
        if getattr(options, "sampler", None):
            named_sampler(options.sampler)
        assert set(getattr(options, "allow", ())) <= set(NAMES)


def test_modules_shown_exist_and_the_evaluation_parses() -> None:
    assert shown("python", "-m", "ecgdiff.evaluation")
    for words in shown("python", "-m"):
        assert find_spec(words[0]) is not None
    for words in shown("python", "-m", "ecgdiff.evaluation"):
        options = _evaluation_parser().parse_args(words)
        for text in getattr(options, "sampler", ()):
            named_sampler(text)


def test_training_commands_name_files_and_settings_that_exist() -> None:
    recipe = (ROOT / "training" / "prior_small.yaml").read_text(encoding="utf-8")
    lines = shown("ecgdiff-train")
    assert lines
    for words in lines:
        assert (ROOT / words[words.index("-c") + 1]).is_file()
    checkpoints = {
        words[words.index("--ckpt_path") + 1] for words in lines if "--ckpt_path" in words
    }
    for path in checkpoints:
        assert f"dirpath: {Path(path).parent}" in recipe


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for words in shown("make"):
        assert re.search(rf"^{words[0]}:", makefile, re.MULTILINE), words


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    anchors = {"#" + heading.lower().replace(" ", "-") for heading in headings}
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("#"):
            assert target in anchors
        elif not target.startswith("https://"):
            assert (path.parent / target).exists(), target


def test_figures_are_those_committed() -> None:
    text = README.read_text(encoding="utf-8")
    assert "<!-- figures:begin results/first_figures.json -->" in text
    assert filled(text, ROOT) == text


def test_figures_that_were_changed_by_hand_are_found(tmp_path: Path) -> None:
    source = ROOT / "results" / "first_figures.json"
    marker = f"<!-- figures:begin {source} -->"
    by_hand = f"before\n{marker}\n| 0.001 |\n<!-- figures:end -->\nafter"
    made = filled(by_hand, tmp_path)
    assert "0.001 |" not in made
    assert section(json.loads(source.read_text(encoding="utf-8"))) in made
    assert made.startswith("before\n") and made.endswith("-->\nafter")
    with pytest.raises(DataError, match="lacks markers"):
        filled("nothing", tmp_path)
    with pytest.raises(DataError, match=r"none\.json"):
        filled(by_hand.replace(str(source), "none.json"), tmp_path)


def test_tables_hold_every_gate_and_sampler() -> None:
    rows = [line for line in README.read_text(encoding="utf-8").splitlines() if line[:1] == "|"]
    first = {row.split("|")[1].strip(): row for row in rows}
    assert {f"`{name}`" for name in NAMES} <= set(first)
    for name, kind in SAMPLERS.items():
        (row,) = [row for cell, row in first.items() if cell.split(" ")[0] == f"`{name}`"]
        calls = kind().nfe()
        text = f"{calls.forward} + {calls.vjp} backward" if calls.vjp else str(calls.forward)
        assert f"| {text} |" in row


def test_the_safety_notice_is_near_the_top() -> None:
    head = README.read_text(encoding="utf-8")[:1500]
    assert "Research use only" in head and "Not for clinical or diagnostic purposes" in head
