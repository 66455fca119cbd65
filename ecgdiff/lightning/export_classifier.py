"""From a training run to a classifier that can be shipped: calibrated on fold 9, with a card.

    python -m ecgdiff.lightning.export_classifier --checkpoint last.ckpt --root PTBXL_FOLDER
    --name default --out FOLDER

On fold 9 it chooses how the windows of a record are combined (by macro AUROC), the temperature
and the thresholds, and writes the checkpoint folder with configuration and card. Fold 10 is not
touched; `python -m ecgdiff.evaluation.classifier` does that.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from ecgdiff.classifier import AGGREGATES, Classifier
from ecgdiff.data.statements import NAMES, STATEMENTS
from ecgdiff.data.training_set import load_labelled_set
from ecgdiff.diagnosis.calibration import RULES
from ecgdiff.diagnosis.estimator import StatementEstimator
from ecgdiff.ecg.preprocess import CLIP_MV, CUTOFF_HZ
from ecgdiff.evaluation.diagnosis import aurocs, brier_scores, calibration_errors
from ecgdiff.evaluation.outputs import check_folder
from ecgdiff.lightning.classifier import StatementClassifier
from ecgdiff.lightning.training_run import named_folds, read_run, trained_folds
from ecgdiff.models.checkpoint import save_checkpoint

__all__ = ["export", "main"]

RATE = 100.0


def export(checkpoint: Path, root: str, name: str, out: Path) -> dict[str, Any]:
    """Writes the checkpoint folder `out` and returns its configuration.

    Arguments:
        checkpoint: A Lightning checkpoint of
            :class:`ecgdiff.lightning.classifier.StatementClassifier`; loaded without executing
            code.
        root: Folder of PTB-XL.
        name: The classifier's name.
        out: Folder to write.

    Raises:
        DataError: If `out` cannot be written.
    """
    check_folder(out)
    state, h = read_run(checkpoint)
    folds = trained_folds(state)
    module = StatementClassifier(**{**h, "compile": False})
    module.load_state_dict(state["state_dict"])
    tensors = {
        key: value.half() if value.ndim > 1 else value
        for key, value in module.net.state_dict().items()
    }
    # What is calibrated is what is shipped: the weights as rounded.
    module.net.load_state_dict({key: value.float() for key, value in tensors.items()})
    samples, labels, _ = load_labelled_set(root, [9], h["leads"])
    signal, y = samples.numpy() / 1000.0, labels.numpy()
    chosen, logits = _best(module, h, signal, y)
    estimator = StatementEstimator(chosen).fit_logits(logits, y)
    config = {
        "name": name,
        "classes": list(STATEMENTS),
        "names": NAMES,
        "leads": list(h["leads"]),
        "sampling_rate_hz": RATE,
        "crop": h["crop"],
        "scale_mv": h["scale"],
        "highpass_hz": CUTOFF_HZ,
        "clip_mv": CLIP_MV,
        "aggregate": chosen.aggregate,
        "temperature": estimator.temperature_,
        "thresholds": {
            rule: [None if np.isnan(v) else float(v) for v in estimator.thresholds_[rule]]
            for rule in RULES
        },
        "training": {
            "data": "PTB-XL 1.0.3, 100 Hz",
            "folds": folds,
            "steps": state["global_step"],
            "hyperparameters": {**h, "leads": list(h["leads"])},
        },
        "validation": _figures(logits, y, estimator.temperature_),
    }
    save_checkpoint(out, config, tensors, _card(config))
    return config


def _best(
    module: StatementClassifier,
    h: dict[str, Any],
    signal: NDArray[np.floating],
    labels: NDArray[np.integer],
) -> tuple[Classifier, NDArray[np.float64]]:
    """The way to combine windows with the best macro AUROC, and its logits."""
    found = []
    for aggregate in AGGREGATES:
        classifier = Classifier(
            module.net.eval(),
            tuple(h["leads"]),
            STATEMENTS,
            RATE,
            h["crop"],
            h["scale"],
            aggregate,
        )
        logits = classifier.logits(signal, h["leads"])
        found.append((float(np.nanmean(aurocs(labels, logits))), classifier, logits))
    _, classifier, logits = max(found, key=lambda entry: entry[0])
    return classifier, logits


def _figures(
    logits: NDArray[np.float64], labels: NDArray[np.integer], temperature: float
) -> dict[str, Any]:
    """What fold 9 says, before and after the temperature."""
    raw, scaled = (expit(logits / t) for t in (1.0, temperature))
    return {
        "records": len(labels),
        "macro_auroc": float(np.nanmean(aurocs(labels, logits))),
        "brier_without_temperature": float(brier_scores(labels, raw).mean()),
        "brier": float(brier_scores(labels, scaled).mean()),
        "ece_without_temperature": float(calibration_errors(labels, raw).mean()),
        "ece": float(calibration_errors(labels, scaled).mean()),
    }


def _card(config: dict[str, Any]) -> str:
    training, h, found = (
        config["training"],
        config["training"]["hyperparameters"],
        config["validation"],
    )
    return f"""\
# Classifier `{config["name"]}`

XResNet1d50 for the {len(config["classes"])} SCP-ECG statements of PTB-XL. A probability is that of
the statement having been made by PTB-XL's readers. Research use only, not for clinical or
diagnostic purposes.

| | |
| --- | --- |
| data | {training["data"]}, {named_folds(training["folds"])} |
| leads | {", ".join(config["leads"])} |
| units | mV; one model unit is {config["scale_mv"]:g} mV |
| rate | {config["sampling_rate_hz"]:g} Hz |
| filter | zero-phase high-pass, {config["highpass_hz"]:g} Hz (half amplitude) |
| windows | {config["crop"]} samples every half window; {config["aggregate"]} of their logits |
| training | {training["steps"]} steps of one cycle, AdamW, peak {h["lr"]:g}, decay \
{h["weight_decay"]:g} |
| calibration | temperature {config["temperature"]:.3f} and thresholds (Youden, F1), on fold 9 |
| fold 9, {found["records"]} records | macro AUROC {found["macro_auroc"]:.4f}; Brier \
{found["brier"]:.4f} ({found["brier_without_temperature"]:.4f} without temperature), calibration \
error {found["ece"]:.4f} ({found["ece_without_temperature"]:.4f}), means over statements |
| license | weights Apache-2.0, trained on PTB-XL (Wagner et al., 2022), CC BY 4.0 |

## Limits

- One country, one device family, 1989-1996; 100 Hz. Other populations and devices are untested.
- Statements are what readers wrote down: sinus bradycardia, for one, was often left unsaid.
- Thresholds were chosen where a statement was made at least once on fold 9.
"""


def main() -> None:
    """Runs the export from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--root", required=True)
    parser.add_argument("--name", default="default")
    parser.add_argument("--out", type=Path, required=True)
    print(export(**vars(parser.parse_args()))["validation"])


if __name__ == "__main__":
    main()
