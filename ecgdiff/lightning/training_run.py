"""What a training run left behind, for the exports and for runs that start from it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ecgdiff.errors import CheckpointError

__all__ = ["lineage", "named_folds", "read_run", "trained_folds"]


def read_run(checkpoint: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads a Lightning checkpoint without executing code.

    Returns:
        All of it, and the module's hyperparameters.
    """
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    # The command line adds a note of its own to the hyperparameters.
    return state, {k: v for k, v in state["hyper_parameters"].items() if not k.startswith("_")}


def lineage(config: Mapping[str, Any]) -> dict[str, Any]:
    """Says what a run's weights were trained on before, given the configuration they came with.

    Returns:
        Name and checksum of the prior, and the steps that it took, with those before it.
    """
    before = config["training"]
    steps = before["steps"] + (before.get("earlier") or {"steps": 0})["steps"]
    return {"name": config["name"], "sha256": config["sha256"], "steps": steps}


def trained_folds(state: Mapping[str, Any]) -> list[int]:
    """Reads which folds of PTB-XL a run learned from.

    Arguments:
        state: All of its checkpoint.

    Raises:
        CheckpointError: If the checkpoint does not say, or names folds that are kept for choices
            (9) and for the final figures (10).
    """
    kept = (part for part in state.values() if isinstance(part, Mapping))
    found = next((part["train_folds"] for part in kept if "train_folds" in part), None)
    if found is None:
        raise CheckpointError(
            "The checkpoint does not say which folds it learned from: it is older than this "
            "version, or was not made with its data module. Resume it for one step, naming the "
            "folds with --data.train_folds, and export what that writes."
        )
    folds = sorted(map(int, found))
    if held_out := [fold for fold in folds if fold > 8]:
        raise CheckpointError(
            f"The run learned from fold {held_out[0]}, on which its export would choose or the "
            "benchmark would score it. Train on folds 1-8, or some of them."
        )
    return folds


def named_folds(folds: Sequence[int]) -> str:
    """Folds as a card names them: "folds 1-8", or one by one where some between are missing."""
    low, high = min(folds), max(folds)
    whole = len(folds) > 1 and sorted(folds) == list(range(low, high + 1))
    each = f"{low}-{high}" if whole else ", ".join(map(str, sorted(folds)))
    return f"fold{'s' if len(folds) > 1 else ''} {each}"
