"""Puts the figures of an evaluation into the README, between its two markers.

    python -m ecgdiff.evaluation.readme results/first_figures.json README.md

A test compares the two files, so the README cannot show other figures than those committed.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ecgdiff.errors import DataError
from ecgdiff.evaluation.calibration import nominal_coverage
from ecgdiff.evaluation.summary import COLUMNS, main_table

__all__ = ["BEGIN", "END", "main", "section"]

BEGIN, END = "<!-- figures:begin -->", "<!-- figures:end -->"
SHOWN = {k: v for k, v in COLUMNS.items() if k not in ("mae_median", "coverage_50")}
TITLES = {
    "leads": "**Lead I to twelve leads** (scored: II and V1-V6)",
    "block": "**The missing half of 2.56 s** (scored: all eight leads in the lost half)",
}


def section(document: Mapping[str, Any]) -> str:
    """Renders the document written by `python -m ecgdiff.evaluation`, markers included."""
    records, settings = document["records"], document["settings"]
    nominal = 100 * nominal_coverage(0.9, settings["draws"])
    lines = [
        BEGIN,
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
    return "\n".join([*lines, END])


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("figures", type=Path, help="the JSON file of an evaluation")
    parser.add_argument("readme", type=Path, help="the file with the two markers")
    options = parser.parse_args(arguments)
    text = options.readme.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise DataError(f"{options.readme} lacks the markers {BEGIN} and {END}.")
    shown = section(json.loads(options.figures.read_text(encoding="utf-8")))
    options.readme.write_text(before + shown + after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
