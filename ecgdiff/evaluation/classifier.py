"""What classifiers tell from real ECGs: `python -m ecgdiff.evaluation.classifier`.

Reads every record of a fold with each classifier and writes OUT/classifier.json and
OUT/classifier.md: macro AUROC over all statements, and for the four conditions AUROC, average
precision, balanced accuracy at the thresholds that were chosen on fold 9, Brier score and
calibration error, with bootstrap intervals over patients. Differences from the first classifier
are computed within each replicate.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ecgdiff.classifier import Classifier, load_classifier
from ecgdiff.data.ptbxl import PTBXL
from ecgdiff.data.statements import CONDITIONS, STATEMENTS
from ecgdiff.data.training_set import preprocess_microvolts
from ecgdiff.ecg.leads import LEADS_12
from ecgdiff.errors import DataError, EcgDiffError
from ecgdiff.evaluation.bootstrap import intervals, replicates
from ecgdiff.evaluation.diagnosis import (
    aurocs,
    average_precisions,
    balanced_accuracies,
    brier_scores,
    calibration_errors,
)
from ecgdiff.evaluation.outputs import check_folder

__all__ = ["evaluate", "main", "table"]

Array = NDArray[np.float64]
FOUR = [STATEMENTS.index(code) for code in CONDITIONS]
SCORES = {
    "auroc": "AUROC",
    "average_precision": "AP",
    "balanced_accuracy_youden": "bal. acc., Youden",
    "balanced_accuracy_f1": "bal. acc., F1",
    "brier": "Brier",
    "ece": "cal. error",
}


def evaluate(root: str, names: list[str], fold: int = 10, resamples: int = 1000) -> dict[str, Any]:
    """Reads a fold with each classifier.

    Arguments:
        root: Folder of PTB-XL.
        names: Classifiers; differences are from the first.
        fold: The fold.
        resamples: Bootstrap replicates.

    Returns:
        Per classifier the figures with their intervals, as plain numbers.
    """
    data = PTBXL(root)
    rows = data.rows([fold])
    _, samples = data.signals([fold], LEADS_12)
    signal = preprocess_microvolts(samples)[0] / 1000.0
    labels = np.array([[code in row.statements for code in STATEMENTS] for row in rows], int)
    loaded = {name: load_classifier(name) for name in names}
    if other := [name for name, c in loaded.items() if c.classes != STATEMENTS]:
        raise DataError(f"{other[0]} does not read the {len(STATEMENTS)} statements of PTB-XL.")
    read = {name: c.probabilities(signal) for name, c in loaded.items()}
    drawn = replicates([row.patient_id for row in rows], resamples)

    def statistic(index: NDArray[np.intp]) -> dict[str, Array]:
        bar.update()
        found = {
            f"{name}/{key}": value
            for name, c in loaded.items()
            for key, value in _figures(c, labels[index], read[name][index]).items()
        }
        for name in names[1:]:
            for key in ("macro_auroc", *SCORES):
                found[f"{name}/{key} difference"] = (
                    found[f"{name}/{key}"] - found[f"{names[0]}/{key}"]
                )
        return found

    with tqdm(total=resamples + 1, desc="bootstrap") as bar:
        value = statistic(np.arange(len(rows)))
        ends = intervals(statistic, drawn)
    out: dict[str, Any] = {name: {} for name in names}
    for key, v in value.items():
        name, score = key.rsplit("/", 1)
        low, high = ends[key]
        out[name][score] = {
            "value": v.round(5).tolist(),
            "low": low.round(5).tolist(),
            "high": high.round(5).tolist(),
        }
    return {
        "fold": fold,
        "records": len(rows),
        "patients": len({row.patient_id for row in rows}),
        "positives": dict(zip(CONDITIONS, labels[:, FOUR].sum(0).tolist(), strict=True)),
        "resamples": resamples,
        "models": {name: c.config["sha256"] for name, c in loaded.items()},
        "temperature": {name: c.temperature for name, c in loaded.items()},
        "results": out,
    }


def _figures(c: Classifier, labels: NDArray[np.integer], p: Array) -> dict[str, Array]:
    y, q = labels[:, FOUR], p[:, FOUR]
    return {
        "macro_auroc": np.nanmean(aurocs(labels, p)),
        "macro_brier": brier_scores(labels, p).mean(),
        "macro_ece": calibration_errors(labels, p).mean(),
        "auroc": aurocs(y, q),
        "average_precision": average_precisions(y, q),
        "balanced_accuracy_youden": balanced_accuracies(y, q, c.thresholds["youden"][FOUR]),
        "balanced_accuracy_f1": balanced_accuracies(y, q, c.thresholds["f1"][FOUR]),
        "brier": brier_scores(y, q),
        "ece": calibration_errors(y, q),
    }


def table(document: Mapping[str, Any]) -> str:
    """The figures as Markdown."""
    lines = [
        f"{document['records']} records of {document['patients']} patients, fold "
        f"{document['fold']}, real 12-lead ECGs; brackets: 95 % bootstrap interval over patients; "
        "a statement that no patient of a replicate has is left out of its macro average. The "
        "calibration error is never negative, so replicates, which are noisier, exceed its value.",
        "",
        "| classifier | macro AUROC, 71 statements | macro Brier | macro calibration error |",
        "| --- | --- | --- | --- |",
    ]
    for name, found in document["results"].items():
        cells = [_cell(found[k]) for k in ("macro_auroc", "macro_brier", "macro_ece")]
        lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    lines += ["", "| condition | positives | classifier | " + " | ".join(SCORES.values()) + " |"]
    lines.append("| --- " * (3 + len(SCORES)) + "|")
    for k, code in enumerate(CONDITIONS):
        for name, found in document["results"].items():
            cells = [_cell(found[score], k) for score in SCORES]
            head = f"| {code} | {document['positives'][code]} | `{name}` | "
            lines.append(head + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(entry: dict[str, Any], k: int | None = None) -> str:
    value, low, high = (
        entry[end] if k is None else entry[end][k] for end in ("value", "low", "high")
    )
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--root", required=True, help="folder of PTB-XL 1.0.3")
    parser.add_argument("--classifier", action="append", help="name or folder; repeatable")
    parser.add_argument("--fold", type=int, default=10, choices=[9, 10])
    parser.add_argument("--resamples", type=int, default=1000, help="bootstrap replicates")
    parser.add_argument("--out", type=Path, default=Path("results/classifier"))
    args = parser.parse_args(arguments)
    names = args.classifier or ["default", "lead_I"]
    try:
        check_folder(args.out)
        text = _write(evaluate(args.root, names, args.fold, max(args.resamples, 1)), args.out)
    except (EcgDiffError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(text)
    return 0


def _write(document: Mapping[str, Any], out: Path) -> str:
    out.mkdir(parents=True, exist_ok=True)
    numbers, text = json.dumps(document, indent=1) + "\n", table(document)
    (out / "classifier.json").write_text(numbers, encoding="utf-8")
    (out / "classifier.md").write_text(text + "\n", encoding="utf-8")
    return text


if __name__ == "__main__":
    sys.exit(main())
