"""Joins what training/slot.py left to a prior.

    python training/join.py --shards OUT/weights --out FOLDER --name mine
    python training/join.py --shards OUT/weights --out FOLDER --name mine --root PTBXL_FOLDER

The first is for a quick look: weights, configuration and a card without acceptance numbers. The
second goes through the same export as any other training run: lead x frequency covariance of the
training folds, loss on the whole of fold 9, acceptance checks, card.

Shards are safetensors files small enough to be sent one by one, and `index.json` with the
configuration and their checksums. Matrices are in half precision, state-space parameters are not.
"""

import argparse
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ecgdiff.errors import CheckpointError
from ecgdiff.models.checkpoint import save_checkpoint

__all__ = ["join", "read_shards", "write_shards"]

# The files that come back from a lent machine have at most 16 MiB; the header needs a little.
SHARD_BYTES = 16 * 2**20 - 2**17
FORMAT = 1
# What the card adds where the network was shown observations.
_SHOWN = (
    " {shown:.0%} of the records showed the network an observation of a random pattern, "
    "{rest:.0%} nothing; the EMA weights are those with the lower mean of both losses."
)


def write_shards(
    folder: Path,
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    limit: int = SHARD_BYTES,
) -> None:
    """Writes weights as files of limited size; an older folder is replaced when all is there.

    Arguments:
        folder: Where to.
        config: As in a checkpoint's `config.json`.
        tensors: The weights by name.
        limit: Bytes of weights per file.

    Raises:
        ValueError: If one tensor is larger than that.
    """
    from safetensors.torch import save_file

    groups: list[dict[str, Tensor]] = [{}]
    for name, tensor in tensors.items():
        if tensor.nbytes > limit:
            raise ValueError(f"{name} takes {tensor.nbytes} bytes, a shard at most {limit}.")
        if sum(t.nbytes for t in groups[-1].values()) + tensor.nbytes > limit:
            groups.append({})
        groups[-1][name] = tensor.detach().cpu().contiguous()
    fresh = folder.with_name(folder.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    shards = []
    for number, group in enumerate(groups):
        path = fresh / f"weights-{number:02d}.safetensors"
        save_file(group, path)
        path.chmod(0o644)  # safetensors writes for the owner alone
        shards.append({"file": path.name, "sha256": _checksum(path)})
    index = {"format": FORMAT, "config": dict(config), "shards": shards}
    (fresh / "index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(fresh, folder)
    shutil.rmtree(old, ignore_errors=True)


def read_shards(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Reads the configuration and the weights back.

    Raises:
        CheckpointError: If a file is missing or damaged, or a number is not finite.
    """
    from safetensors.torch import load_file

    try:
        index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        config, shards = index["config"], index["shards"]
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{folder} has no readable index.json: {error!r}.") from error
    tensors: dict[str, Tensor] = {}
    for shard in shards:
        path = folder / shard["file"]
        if not path.is_file() or _checksum(path) != shard["sha256"]:
            raise CheckpointError(f"{path} is missing or damaged; collect it again.")
        tensors.update(load_file(path))
    if bad := [name for name, t in tensors.items() if not t.isfinite().all()]:
        raise CheckpointError(f"{folder}: {bad[0]} holds numbers that are not finite.")
    return config, tensors


def join(
    shards: Path,
    out: Path,
    name: str,
    root: str | None = None,
    draws: int = 512,
    device: str = "cpu",
) -> None:
    """Writes a checkpoint folder that `load_prior` reads.

    Arguments:
        shards: The folder of the shards.
        out: The folder to write.
        name: The prior's name.
        root: Folder of PTB-XL, for covariance and acceptance checks; a quick look without.
        draws: Unconditional draws for the acceptance check.
        device: Where the checks are computed.

    Raises:
        CheckpointError: If the shards are damaged.
        DataError: If `out` cannot be written.
    """
    from ecgdiff.evaluation.outputs import check_folder  # not needed where shards are written

    check_folder(out)
    config, tensors = read_shards(shards)
    slot = config["training"]["slot"]
    if root is None:
        save_checkpoint(out, {**config, "name": name}, tensors, _short_card(config, name))
        return
    from ecgdiff.lightning.export import export

    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run.ckpt"
        torch.save(_as_run(config, tensors), run)
        export(run, root, name, out, draws, device)
    # The export knows what all runs have; what only a run by the clock has is added.
    written = json.loads((out / "config.json").read_text(encoding="utf-8"))
    written["training"]["slot"] = slot
    (out / "config.json").write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
    with (out / "README.md").open("a", encoding="utf-8") as card:
        card.write(_slot_card(slot))


def _as_run(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """A training run as the export reads it, with one average."""
    training = config["training"]
    weights = {f"net.{name}": tensor.float() for name, tensor in tensors.items()}
    return {
        "hyper_parameters": training["hyperparameters"],
        "global_step": training["steps"],
        "earlier": training["earlier"],
        "data": {"train_folds": training["folds"]},
        "callbacks": {"slot": {"averages": {str(training["ema_decay"]): weights}}},
    }


def _slot_card(slot: Mapping[str, Any]) -> str:
    share = slot["shown"]
    seen = _SHOWN.format(shown=share, rest=1 - share) if share else ""
    if backs := slot["restarts"]:
        seen += f" Steps failed, and the run went back {backs} times, to half the rates each time."
    return (
        "\n## Training by the clock\n\n"
        f"{slot['seconds'] / 60:.1f} minutes on one device ({slot['device']}), batches of "
        f"{slot['batch']}; the learning rate came down with the time. The EMA weights were chosen "
        f"on {slot['validation_records']} records of fold {slot['validation_fold']}. The samples "
        f"were rounded to steps of {slot['step_uv']} uV.{seen}\n"
    )


def _short_card(config: Mapping[str, Any], name: str) -> str:
    steps = config["training"]["steps"]
    return (
        f"# Prior `{name}`\n\nJoined for a quick look after {steps} steps: not checked, without a "
        "covariance. Research use only, not for clinical or diagnostic purposes.\n"
        + _slot_card(config["training"]["slot"])
    )


def _checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main() -> None:
    """Joins from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shards", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--root")
    parser.add_argument("--draws", type=int, default=512)
    parser.add_argument("--device", default="cpu", help="for the checks, such as cuda")
    join(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
