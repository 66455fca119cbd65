"""What a training run left behind, for the exports."""

from pathlib import Path
from typing import Any

import torch

__all__ = ["read_run"]


def read_run(checkpoint: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads a Lightning checkpoint without executing code.

    Returns:
        All of it, and the module's hyperparameters.
    """
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    # The command line adds a note of its own to the hyperparameters.
    return state, {k: v for k, v in state["hyper_parameters"].items() if not k.startswith("_")}
