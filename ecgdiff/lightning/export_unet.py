"""From a training run to a U-Net control that the benchmark takes, with its errors on fold 9.

python -m ecgdiff.lightning.export_unet --checkpoint last.ckpt --root PTBXL_FOLDER --name unet
--out FOLDER
"""

import argparse
from pathlib import Path
from typing import Any

from ecgdiff.data.training_set import load_fold_set
from ecgdiff.ecg.leads import LEADS_8
from ecgdiff.ecg.preprocess import CLIP_MV, CUTOFF_HZ
from ecgdiff.evaluation.outputs import check_folder
from ecgdiff.lightning.regression import PATTERNS, UNetRegression, errors
from ecgdiff.lightning.training_run import named_folds, read_run, trained_folds
from ecgdiff.models.checkpoint import save_checkpoint

__all__ = ["export", "main"]


def export(checkpoint: Path, root: str, name: str, out: Path) -> dict[str, Any]:
    """Writes the checkpoint folder `out` and returns its configuration.

    Arguments:
        checkpoint: A Lightning checkpoint of :class:`UNetRegression`, made by yourself: it is
            loaded without executing code.
        root: Folder of PTB-XL.
        name: The network's name.
        out: Folder to write.

    Raises:
        DataError: If `out` cannot be written.
    """
    check_folder(out)
    state, h = read_run(checkpoint)
    folds = trained_folds(state)
    module = UNetRegression(**h)
    # Convolutions in half precision, the numbers of the normalization as they are.
    tensors = {
        k: v.half() if v.ndim == 3 else v
        for k, v in state["state_dict"].items()
        if k.startswith("net.")
    }
    module.load_state_dict(tensors)
    module.eval()
    whole, _ = load_fold_set(root, [9], LEADS_8)
    parts = [(len(x), errors(module, x, k)) for k, x in enumerate(whole.split(64))]
    fold9 = {k: sum(n * found[k] for n, found in parts) / len(whole) for k in PATTERNS}
    config = {
        "name": name,
        "network": {
            "channels": len(LEADS_8),
            "curves": module.net.curves,
            "widths": list(h["widths"]),
            "kernel": h["kernel"],
        },
        "levels": list(h["levels"]),
        "leads": list(LEADS_8),
        "sampling_rate_hz": 100.0,
        "scale_mv": h["scale"],
        "clip_mv": CLIP_MV,
        "highpass_hz": CUTOFF_HZ,
        "training": {
            "data": "PTB-XL 1.0.3, 100 Hz",
            "folds": folds,
            "steps": state["global_step"],
            "hyperparameters": {k: list(v) if isinstance(v, tuple) else v for k, v in h.items()},
        },
        "errors_mv_fold9": fold9,
    }
    stripped = {k.removeprefix("net."): v for k, v in tensors.items()}
    save_checkpoint(out, config, stripped, _card(config))
    return config


def _card(config: dict[str, Any]) -> str:
    """The model card, from the configuration so that no number is typed by hand."""
    levels, training = config["levels"], config["training"]
    gives = f"quantiles at the levels {', '.join(map(str, levels))}" if levels else "one curve"
    kind = "twice the mean pinball loss" if levels else "mean absolute error"
    rows = [f"| {k} | {v:.4f} |" for k, v in config["errors_mv_fold9"].items()]
    lines = [
        f"# Control `{config['name']}`\n",
        f"A one-dimensional U-Net ({', '.join(map(str, config['network']['widths']))} channels) "
        f"that is shown part of the leads {', '.join(config['leads'])} at 100 Hz and gives "
        f"{gives} per sample and lead. It is a control of the benchmark: it says nothing about "
        "how the samples of one ECG depend on each other.\n",
        f"Trained on {training['data']}, {named_folds(training['folds'])}, for "
        f"{training['steps']} of {training['hyperparameters']['total_steps']} steps. Research "
        "use only. Weights Apache-2.0; PTB-XL (Wagner et al., 2022) CC BY 4.0.\n",
        f"## Fold 9: {kind} of lost samples, mV\n\n| lost | error |\n| --- | --- |",
        *rows,
        "\n`leads`: all but lead I; `block`: one half of 2.56 s, nothing outside it; "
        "`precordial`: V1-V3.\n",
    ]
    return "\n".join(lines)


def main() -> None:
    """Runs the export from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--root", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--out", type=Path, required=True)
    config = export(**vars(parser.parse_args()))
    print(config["errors_mv_fold9"])


if __name__ == "__main__":
    main()
