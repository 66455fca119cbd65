"""The quality page of a prior: `python -m ecgdiff.evaluation.quality --root PTBXL --out FOLDER`.

Draws from the prior without any observation and compares the draws with real ECGs that it was not
trained on (fold 9): the acceptance checks, the denoising loss on fold 9 and on as many training
records, the Fréchet distance on a classifier's features, rhythms, amplitudes, spectra, and the
distance to the nearest training record. Writes OUT/quality.json (all numbers), OUT/quality.md (the
tables), OUT/quality.html (the figures; needs plotly) and OUT/draws.html (the first 64 draws on ECG
paper). Needs neurokit2 for the rhythms.
"""

import argparse
import importlib.util
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ecgdiff import __version__
from ecgdiff.classifier import load_classifier
from ecgdiff.ecg.leads import LEADS_12
from ecgdiff.errors import EcgDiffError
from ecgdiff.evaluation.delineation import find_beats
from ecgdiff.evaluation.distributions import rhythms
from ecgdiff.evaluation.draws_page import draws_page
from ecgdiff.evaluation.outputs import check_folder
from ecgdiff.evaluation.quality_measures import Clock, Settings, measure
from ecgdiff.evaluation.quality_page import figure
from ecgdiff.evaluation.quality_records import Folds
from ecgdiff.evaluation.quality_summary import summarize, twelve
from ecgdiff.evaluation.quality_tables import markdown, verdict
from ecgdiff.experiments.figure import write_figure
from ecgdiff.prior import Prior, load_prior

__all__ = ["main", "write"]

SHOWN = 64


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit status: 0 however the prior is judged, 1 on errors."""
    args = _parser().parse_args(arguments)
    try:
        document = write(args)
    except (EcgDiffError, ImportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; nothing was written", file=sys.stderr)
        return 130
    passed = verdict(document["acceptance"]["passed"])
    print(f"acceptance {passed}; wrote quality.json, .md, .html and draws.html in {args.out}")
    return 0


def write(args: argparse.Namespace) -> dict[str, Any]:
    """Measures a prior and writes the four files; returns the numbers.

    Raises:
        EcgDiffError: If PTB-XL, a prior or the classifier is missing, the folder cannot be
            written, or the numbers asked for are too small.
        ImportError: If plotly or neurokit2 is not installed.
    """
    settings = Settings(args.draws, args.steps, args.records, args.seed)
    _require_libraries()
    check_folder(args.out)
    prior, classifier = load_prior(args.prior), load_classifier(args.classifier)
    if classifier.sampling_rate != prior.sampling_rate:
        raise EcgDiffError(
            f"The classifier {classifier.name} reads {classifier.sampling_rate:g} Hz, the prior "
            f"{prior.name} models {prior.sampling_rate:g} Hz; give another --classifier."
        )
    compare = load_prior(args.compare) if args.compare else None
    folds = Folds(args.root, prior.leads)
    clock = Clock()
    measured = measure(prior, folds, settings, clock, compare)
    document = {
        "command": _command(args),
        "version": __version__,
        "torch": torch.__version__,
        "settings": asdict(settings),
        "prior": _origin(prior),
        "compare": _origin(compare) if compare else None,
        "classifier": {"name": classifier.name, "sha256": classifier.config.get("sha256")},
        **summarize(measured, prior, classifier, clock, args.seed),
        "seconds": clock.seconds,
    }
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "quality.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    (out / "quality.md").write_text(markdown(document), encoding="utf-8")
    write_figure(figure(document), out / "quality.html", offline=True)
    _paper(twelve(measured.drawn[:SHOWN], prior.leads), prior, args, out / "draws.html")
    return document


def _paper(
    signal: NDArray[np.float32], prior: Prior, args: argparse.Namespace, path: Path
) -> None:
    """The first draws on ECG paper, each with its heart rate and the variation of RR."""
    found = zip(*rhythms(signal[:, LEADS_12.index("II")], prior.sampling_rate), strict=True)
    captions = [
        f"Draw {number}   "
        + ("no beats found" if np.isnan(rate) else f"{rate:.0f}/min, RR ± {variation:.0f} %")
        for number, (rate, variation) in enumerate(found, start=1)
    ]
    title = f"{len(signal)} draws from the prior {prior.name}"
    text = (
        f"The first {len(signal)} of seed {args.seed}, without any observation and without "
        "selection; III, aVR, aVL and aVF follow from I and II. Printed, each is a page in true "
        "millimeters."
    )
    band = str(prior.config.get("band", ""))
    draws_page(signal, prior.sampling_rate, captions, path, title=title, text=text, band=band)


def _require_libraries() -> None:
    """Says what is missing before anything is computed."""
    find_beats(np.zeros(1), 100.0)  # asks for neurokit2 before it looks at the lead
    if importlib.util.find_spec("plotly") is None:
        raise ImportError("The page needs plotly: pip install 'ecgdiff[plot]'.")


def _origin(prior: Prior) -> dict[str, Any]:
    return {"name": prior.name, "sha256": str(prior.config.get("sha256"))}


def _command(args: argparse.Namespace) -> str:
    """The command without folders, which say nothing about a result."""
    parts = ["python", "-m", "ecgdiff.evaluation.quality", "--root", "PTBXL_DIR"]
    for name in ("prior", "compare", "classifier"):
        if (value := getattr(args, name)) is not None:
            parts += [f"--{name}", Path(value).name]
    for name in ("draws", "steps", "records", "seed"):
        if (value := getattr(args, name)) is not None:
            parts += [f"--{name}", str(value)]
    return shlex.join([*parts, "--out", "OUT"])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ecgdiff.evaluation.quality", description=__doc__
    )
    add = parser.add_argument
    add("--root", required=True, help="folder of PTB-XL 1.0.3 with records100/")
    add("--prior", default="default", help="name or folder of the prior (default: default)")
    add("--compare", metavar="PRIOR", help="a prior whose loss must be higher in every band")
    add("--classifier", default="default", help="the one whose features are compared")
    add("--draws", type=int, default=512, help="unconditional draws (default: 512)")
    add("--steps", type=int, default=32, help="denoiser calls per draw (default: 32)")
    add("--records", type=int, help="only so many records of fold 9, taken at random")
    add("--seed", type=int, default=0)
    add("--out", required=True, help="folder for the results")
    return parser


if __name__ == "__main__":
    sys.exit(main())
