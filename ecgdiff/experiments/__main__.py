"""Runs one experiment: `python -m ecgdiff.experiments NAME [--setting value ...] --out results`.

Writes OUT/NAME.json (all numbers and the command), OUT/NAME.md (the table) and OUT/NAME.html (the
figure; needs plotly).
"""

import argparse
import inspect
import json
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from ecgdiff import __version__
from ecgdiff.errors import EcgDiffError
from ecgdiff.evaluation.outputs import check_folder
from ecgdiff.experiments import (
    ablation,
    anisotropic,
    ecg_budget,
    gaussian_ecg,
    gaussian_midpoint,
    mixture,
)
from ecgdiff.experiments.figure import write_figure

__all__ = ["EXPERIMENTS", "Experiment", "main"]


@dataclass(frozen=True)
class Experiment:
    """An experiment; the defaults of its settings are those of a full run.

    Attributes:
        setting: The dataclass of its settings; each field is an option of the command.
        run: Computes the result, plain numbers in dicts and lists.
        table: The result as Markdown.
        figure: The result as a plotly figure, in plain dicts and lists.
    """

    setting: type[Any]
    run: Callable[[Any], dict[str, Any]]
    table: Callable[[dict[str, Any]], str]
    figure: Callable[[dict[str, Any]], dict[str, Any]]


EXPERIMENTS = {
    name: Experiment(module.Setting, module.run, module.table, module.figure)
    for name, module in {
        "gaussian-midpoint": gaussian_midpoint,
        "gaussian-ecg": gaussian_ecg,
        "mixture": mixture,
        "mixture-ablation": ablation,
        "anisotropic-mixture": anisotropic,
        "ecg-budget": ecg_budget,
    }.items()
}

# Folders say nothing about a result and differ between machines.
_FOLDERS = {"root": "PTBXL_DIR", "rows": "ROWS"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit status."""
    given = vars(_parser().parse_args(arguments))
    name, out = given.pop("name"), Path(given.pop("out"))
    try:
        print(_results(name, given, out))
    except (EcgDiffError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _results(name: str, given: Mapping[str, Any], out: Path) -> str:
    """Runs one experiment, writes its files and returns the text of one of them."""
    check_folder(out)
    experiment = EXPERIMENTS[name]
    begin = time.perf_counter()
    result = experiment.run(experiment.setting(**given))
    document = {
        "command": _command(name, given),
        "version": __version__,
        "torch": torch.__version__,
        "seconds": round(time.perf_counter() - begin, 1),
        **result,
    }
    text = f"`{document['command']}`\n\n{experiment.table(result)}\n"
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    (out / f"{name}.md").write_text(text, encoding="utf-8")
    write_figure(experiment.figure(result), out / f"{name}.html")
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ecgdiff.experiments", description=__doc__)
    commands = parser.add_subparsers(dest="name", required=True, metavar="NAME")
    for name, experiment in EXPERIMENTS.items():
        summary = (inspect.getdoc(experiment.run) or "").split("\n")[0]
        command = commands.add_parser(name, help=summary, description=summary)
        for setting in fields(experiment.setting):
            flag, kind = f"--{setting.name.replace('_', '-')}", type(setting.default)
            if kind is bool:
                command.add_argument(flag, action="store_true")
            else:
                command.add_argument(flag, type=kind, default=setting.default, help="%(default)s")
        command.add_argument("--out", default="results", help="folder for the results")
    return parser


def _command(name: str, settings: Mapping[str, Any]) -> str:
    parts = ["python", "-m", "ecgdiff.experiments", name]
    for key, value in settings.items():
        flag = f"--{key.replace('_', '-')}"
        if isinstance(value, bool):
            parts += [flag] * value
        else:
            parts += [flag, _FOLDERS.get(key, str(value))]
    return shlex.join(parts)


if __name__ == "__main__":
    sys.exit(main())
