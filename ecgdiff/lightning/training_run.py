"""What a training run left behind, for the exports and for runs that start from it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

__all__ = ["lineage", "read_run"]


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
