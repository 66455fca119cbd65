"""Puts committed figures into the README, each between two markers that name their file.

    python -m ecgdiff.evaluation.readme README.md

A test compares the two, so the README cannot show other figures than those committed.
"""

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ecgdiff.errors import DataError
from ecgdiff.evaluation import classifier
from ecgdiff.evaluation.calibration import nominal_coverage
from ecgdiff.evaluation.summary import COLUMNS, main_table

__all__ = ["filled", "main", "section"]

MARKED = re.compile(
    r"<!-- figures:begin (?P<path>\S+) -->\n(?P<shown>.*?)<!-- figures:end -->", re.DOTALL
)
SHOWN = {
    name: COLUMNS[name]
    for name in ("rmse_mean", "crps", "coverage_90", "spread_skill", "amplitude_ratio")
}
TITLES = {
    "leads": "**Lead I to twelve leads** (scored: II and V1-V6)",
    "block": "**The missing half of 2.56 s** (scored: all eight leads in the lost half)",
    "precordial": "**V1-V3 lost** (scored: V1-V3)",
    "noisy": "**A noisy lead I to twelve leads** (scored: II and V1-V6)",
}


def section(document: Mapping[str, Any]) -> str:
    """Renders what `python -m ecgdiff.evaluation` or `... .classifier` wrote as JSON."""
    if "tasks" in document:
        return _reconstruction(document)
    return classifier.table(document)


def _reconstruction(document: Mapping[str, Any]) -> str:
    records, settings = document["records"], document["settings"]
    nominal = 100 * nominal_coverage(0.9, settings["draws"])
    lines = [
        f"{len(records['ecg_ids'])} records of fold {records['fold']} (`{records['name']}`), one "
        f"per patient, {settings['draws']} draws, noise of {settings['noise']} mV added",
        "to what is observed. Errors in mV, brackets: 95 % bootstrap interval over patients. The "
        "band's nominal",
        f"value is {nominal:.1f} % for {settings['draws']} draws; seconds are those of one CPU "
        "core. Everything else is in",
        "[results/first_figures.md](results/first_figures.md).",
    ]
    for name, task in document["tasks"].items():
        lines += ["", TITLES[name], "", *main_table(task["methods"], SHOWN, nominal=False)]
    return "\n".join(lines)


def filled(text: str, folder: Path) -> str:
    """Gives the text with what stands between its markers made anew.

    Arguments:
        text: Markdown with at least one pair of markers.
        folder: What the paths in the markers are relative to.

    Raises:
        DataError: If there are no markers, or one names no file.
    """

    def made(found: re.Match[str]) -> str:
        path = folder / found["path"]
        if not path.is_file():
            raise DataError(f"{path}, named by a marker, was not found.")
        shown = section(json.loads(path.read_text(encoding="utf-8")))
        return f"<!-- figures:begin {found['path']} -->\n{shown}\n<!-- figures:end -->"

    if not MARKED.search(text):
        raise DataError("The text lacks markers: <!-- figures:begin FILE --> ... figures:end.")
    return MARKED.sub(made, text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("readme", type=Path, help="the file with the markers")
    path = parser.parse_args(arguments).readme
    path.write_text(filled(path.read_text(encoding="utf-8"), path.parent), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
