"""Checkpoints: a folder with `config.json`, `model.safetensors` and a card, `README.md`.

Loading never runs code: safetensors holds numbers only, and the configuration is plain JSON that
names the architecture by its constructor arguments. The configuration carries the checksum of the
weights, so a damaged or exchanged file is refused instead of giving a silently different model.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ecgdiff.errors import CheckpointError

__all__ = [
    "FORMAT",
    "checkpoint_names",
    "find_checkpoint",
    "load_checkpoint",
    "save_checkpoint",
    "stored",
]

FORMAT = 1
"""Version of the folder's layout; a reader refuses what is newer than itself."""


def save_checkpoint(
    folder: str | Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor], card: str
) -> None:
    """Writes a checkpoint.

    Arguments:
        folder: Where to; made if absent.
        config: What is needed to rebuild the model, JSON-serializable.
        tensors: The weights by name.
        card: The model card, Markdown.
    """
    from safetensors.torch import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "model.safetensors"
    save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, weights)
    weights.chmod(0o644)  # safetensors writes for the owner alone
    full = {"format": FORMAT, **config, "sha256": _sha256(weights)}
    (folder / "config.json").write_text(json.dumps(full, indent=2) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(card, encoding="utf-8")


def stored(net: nn.Module) -> dict[str, Tensor]:
    """The weights as they are shipped: matrices in half precision, state-space parameters not.

    Rounding moves a denoised signal by less than a thousandth of the noise that it removes.
    """
    exact = {name for name, p in net.named_parameters() if getattr(p, "state_space", False)}
    return {
        name: value.half() if value.ndim == 2 and name not in exact else value
        for name, value in net.state_dict().items()
    }


def checkpoint_names(shelf: Path) -> list[str]:
    """Lists the checkpoints in a folder of such folders."""
    return sorted(path.parent.name for path in shelf.glob("*/config.json"))


def find_checkpoint(shelf: Path, name: str | Path, kind: str) -> Path:
    """Finds the folder of a checkpoint that comes with the package, or of a path.

    Arguments:
        shelf: The folder of those that come with the package.
        name: The name of one of them, or a path.
        kind: What to call it in the error.

    Raises:
        CheckpointError: If there is neither.
    """
    names = checkpoint_names(shelf)
    folder = shelf / str(name) if str(name) in names else Path(name)
    if not folder.is_dir():
        raise CheckpointError(
            f"There is no {kind} {str(name)!r}: neither a folder of that path nor one of the "
            f"embedded {kind}s ({', '.join(names) or 'none'})."
        )
    return folder


def load_checkpoint(folder: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Reads the configuration and the weights of a checkpoint.

    Raises:
        CheckpointError: If a file is missing or damaged, or the layout is newer than this version
        reads.
    """
    from safetensors.torch import load_file

    folder = Path(folder)
    config = _read_config(folder / "config.json")
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise CheckpointError(f"{weights} was not found; a checkpoint folder holds it.")
    if (found := _sha256(weights)) != config.get("sha256"):
        raise CheckpointError(
            f"{weights} has the checksum {found[:12]}..., config.json says "
            f"{str(config.get('sha256'))[:12]}...: the file is damaged or of another checkpoint."
        )
    try:
        return config, load_file(weights)
    except Exception as error:
        raise CheckpointError(f"{weights} is no safetensors file: {error}") from error


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointError(
            f"{path} was not found. Give a folder with config.json and model.safetensors "
            "(pickled checkpoints such as .pt or .ckpt are not loaded)."
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from error
    if not isinstance(config, dict) or not isinstance(config.get("format"), int):
        raise CheckpointError(f"{path} names no format version; it is not a model of ecgdiff.")
    if config["format"] > FORMAT:
        raise CheckpointError(
            f"{path} has format {config['format']}, this version reads up to {FORMAT}; "
            "update ecgdiff."
        )
    return config


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
