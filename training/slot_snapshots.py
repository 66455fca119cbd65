"""Snapshots of training/slot.py: all that a later process needs, and the way back to one."""

import os
import pickle
from typing import Any

import torch
from slot_run import Run

from ecgdiff.errors import CheckpointError

__all__ = ["RESTARTS", "go_back", "load_snapshot", "save_snapshot"]

RESTARTS = 2
"""How often a run goes back to a snapshot, each time with half the learning rates."""


def save_snapshot(run: Run, used: float, progress: float) -> None:
    """Writes all that a later process needs; keeps the last two.

    Arguments:
        run: The run.
        used: Seconds used so far, by all its processes.
        progress: Its progress.

    Raises:
        FloatingPointError: If the averages are not finite; nothing is written then.
    """
    flat = [p for average in run.averages.values() for p in average]
    if not torch.stack([p.isfinite().all() for p in flat]).all():
        raise FloatingPointError(f"The weights are not finite at step {run.step}.")
    state = {
        "settings": _fixed(run),
        "step": run.step,
        "used": used,
        "progress": progress,
        "restarts": run.restarts,
        "earlier": run.earlier,
        "weights": [p.detach() for p in run.parameters],
        "averages": {str(decay): average for decay, average in run.averages.items()},
        "optimizer": run.optimizer.state_dict(),
    }
    folder = run.a.out / "snapshots"
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / "writing.part"
    torch.save(state, part)
    os.replace(part, folder / f"step-{run.step:09d}.pt")
    for old in sorted(folder.glob("step-*.pt"))[:-2]:
        old.unlink()


def load_snapshot(run: Run) -> tuple[float, float]:
    """Puts the newest readable snapshot into a run; returns the time it used and its progress.

    Raises:
        CheckpointError: If there is none, or it is of another run.
    """
    state: dict[str, Any] | None = None
    for path in sorted((run.a.out / "snapshots").glob("step-*.pt"), reverse=True):
        try:
            state = torch.load(path, map_location=run.device, weights_only=True)
            break
        except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
            print(f"{path} cannot be read ({error}); trying the one before")
    if state is None:
        raise CheckpointError(f"{run.a.out} has no snapshot; start without --resume.")
    if state["settings"] != _fixed(run):
        raise CheckpointError(
            f"{run.a.out} is of a run with {state['settings']}, not {_fixed(run)}; give its "
            "arguments, or another --out."
        )
    with torch.no_grad():
        for own, value in zip(run.parameters, state["weights"], strict=True):
            own.copy_(value)
    run.averages = {decay: state["averages"][str(decay)] for decay in run.averages}
    run.optimizer.load_state_dict(state["optimizer"])
    run.free_rates()
    run.step, run.earlier, run.restarts = state["step"], state["earlier"], state["restarts"]
    return state["used"], state["progress"]


def go_back(run: Run, error: FloatingPointError) -> None:
    """Puts the newest snapshot into a run that failed, and halves its learning rates.

    Arguments:
        run: The run.
        error: What went wrong.

    Raises:
        FloatingPointError: `error`, if there is no snapshot or the run went back often enough.
    """
    restarts = run.restarts + 1
    if restarts > RESTARTS:
        raise error
    try:
        load_snapshot(run)
    except CheckpointError:
        raise error from None
    run.restarts = restarts
    print(f"{error} Back to step {run.step}, with learning rates x {run.cut:g}.", flush=True)


def _fixed(run: Run) -> dict[str, Any]:
    """What a resumed run must share with the one it goes on from."""
    keys = ("preset", "channels", "scale", "seed", "lengths", "gain", "shown")
    own = {
        "batch": run.a.batch,
        "records": run.about["records"],
        "folds": run.about["folds"],
        "step_uv": run.step_uv,
        "device": run.device.type,
        "decays": list(run.averages),
    }
    return {**{key: run.h[key] for key in keys}, **own}
