"""Trains a prior by the clock, on one device that is lent for minutes.

    PYTHONPATH=. python training/slot.py --data PARTS --preset base --minutes 22 --out FOLDER

Needs torch, NumPy, SciPy, safetensors and the data of training/pack.py; training/slot.md has the
whole way. The records lie on the device and are picked, cropped and varied there, and the host
waits for the device only to log. The learning rate follows the time: with progress p the share of
the budget that is gone since the first step could be made,

    rate(p) = p / 0.03 for p < 0.03, then 0.01 + 0.99 (1 + cos(pi (p - 0.03) / 0.97)) / 2 .

With `--shown SHARE` the network is shown an observation in that share of the records, and serves
the sampler `conditional` as well as those that guide a prior.

FOLDER gets `log.csv` (which training/curve.py draws), `snapshots/` (all that `--resume` needs,
every minute, the last two) and `weights/` (the better average, at every validation). When the time
is over or on SIGTERM the step is finished, the weights are written, read back and compared with
those in memory; the exit status is 0 only if they pass. Then follow the acceptance checks of a
prior's card, into `acceptance.json` and `draws.npz`.
"""

import argparse
import math
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from join import read_shards, write_shards
from slot_acceptance import write_acceptance
from slot_log import Log
from slot_run import MEAN, VALIDATION_FOLD, Losses, Run
from slot_snapshots import go_back, load_snapshot, save_snapshot

from ecgdiff.diffusion.quality import BANDS
from ecgdiff.errors import CheckpointError, EcgDiffError
from ecgdiff.models import s4
from ecgdiff.models.checkpoint import stored
from ecgdiff.models.sashimi import PRESETS, SaShiMi

WARMUP, FINAL = 0.03, 0.01
COMPILE = ("off", "default", "reduce-overhead", "max-autotune-no-cudagraphs")
TOLERANCE = 0.01


def rate(progress: float) -> float:
    """The learning rate as a fraction of its peak."""
    if progress < WARMUP:
        return progress / WARMUP
    done = (progress - WARMUP) / (1 - WARMUP)
    return FINAL + (1 - FINAL) * 0.5 * (1 + math.cos(math.pi * done))


@dataclass
class Budget:
    """The time of a run, over all its processes.

    Arguments:
        seconds: What there is.
        used: What earlier processes of this run have used.
        before: Their progress.
        now: The clock.
    """

    seconds: float
    used: float = 0.0
    before: float = 0.0
    now: Callable[[], float] = time.monotonic
    ready: float = field(init=False, default=math.inf)

    def __post_init__(self) -> None:
        self.began = self.now()

    def elapsed(self) -> float:
        """Seconds used so far."""
        return self.used + self.now() - self.began

    def start(self) -> None:
        """Says that steps can be made: loading and compiling shorten the run, not its schedule."""
        self.ready = self.elapsed()

    def progress(self) -> float:
        """From 0 at the first process's start to 1 when the time is over."""
        gone, whole = self.elapsed() - self.ready, self.seconds - self.ready
        if gone < 0:
            return self.before
        return min(1.0, self.before + (1 - self.before) * gone / whole) if whole > 0 else 1.0


def publish(run: Run, elapsed: float, *, check: bool) -> dict[float, Losses]:
    """Writes the better average as shards and returns the losses of all.

    The better one has the smaller sum over levels, of the means of both views if there are two.

    Raises:
        CheckpointError: If `check` and the weights read back are not those in memory.
        FloatingPointError: If the averages are not finite; what was written before stays.
    """
    twins = {decay: run.averaged(decay) for decay in run.averages}
    losses = dict(zip(twins, run.losses(list(twins.values())), strict=True))
    best = min(losses, key=lambda decay: sum(losses[decay][MEAN]))
    if not all(p.isfinite().all() for p in run.averages[best]):
        raise FloatingPointError(f"The weights are not finite at step {run.step}.")
    weights = run.a.out / "weights"
    write_shards(weights, _config(run, elapsed, best, losses[best]), stored(twins[best]))
    if check:
        config, tensors = read_shards(weights)
        again = SaShiMi(**config["network"])
        again.load_state_dict(tensors)
        net = again.to(run.device).eval().requires_grad_(False)
        (read,) = run.losses([net])
        for view, values in losses[best].items():
            _compare(values, read[view], weights)
    return losses


def _compare(memory: Sequence[float], read: Sequence[float], weights: Path) -> None:
    for sigma, a, b in zip(BANDS, memory, read, strict=True):
        if not abs(a - b) <= TOLERANCE * abs(a):
            raise CheckpointError(
                f"The weights read back have the loss {b:.4g} at sigma {sigma:.3g}, those in "
                f"memory {a:.4g}: do not use {weights}."
            )


def _config(run: Run, elapsed: float, decay: float, losses: Losses) -> dict[str, Any]:
    h = {**run.h, "total_steps": max(1, run.step)}
    return {
        "name": "slot",
        "objective": "edm",
        "inpainting": run.h["inpainting"],
        "network": run.network,
        "leads": list(run.leads),
        "sampling_rate_hz": 100.0,
        "n_samples": run.validation.shape[-1],
        "scale_mv": h["scale"],
        "clip_mv": 5.0,
        "highpass_hz": 0.5,
        "band": "0.5-42 Hz",
        "training": {
            "data": "PTB-XL 1.0.3, 100 Hz",
            **run.about,
            "steps": run.step,
            "earlier": run.earlier,
            "hyperparameters": h,
            "ema_decay": str(decay),
            "slot": {
                "seconds": round(elapsed, 1),
                "batch": run.a.batch,
                "shown": run.a.shown,
                "restarts": run.restarts,
                "device": run.a.device,
                "step_uv": run.step_uv,
                "validation_fold": VALIDATION_FOLD,
                "validation_records": len(run.validation),
                **{f"validation_losses{view}": values for view, values in losses.items()},
            },
        },
    }


def train(run: Run, budget: Budget, log: Log, stopped: Callable[[], bool]) -> None:
    """Makes steps until the time is over, from a snapshot with half the rates if they fail.

    Raises:
        FloatingPointError: If the steps fail again and again.
        EcgDiffError: If there was no time for one.
    """
    a = run.a
    # The first ones come early: before the rate is at its peak, and to show that all works.
    snapshot = budget.elapsed() + a.snapshot_seconds / 4
    validation = budget.elapsed() + a.validate_seconds / 4
    since, at = run.step, budget.elapsed()
    while budget.elapsed() < budget.seconds and not stopped():
        run.train_step(rate(budget.progress()))
        if run.step % a.log_steps and budget.elapsed() < snapshot:
            continue
        try:
            loss = run.mean_loss()
        except FloatingPointError as error:
            go_back(run, error)
            log.rewind(run.step)
            since, at = run.step, budget.elapsed()
            continue
        elapsed = budget.elapsed()
        speed = (run.step - since) * a.batch / (elapsed - at)
        lr = run.h["lr"] * run.cut * rate(budget.progress())
        log.write(
            step=run.step,
            elapsed_s=round(elapsed, 2),
            loss=loss,
            lr=lr,
            samples_per_s=round(speed, 1),
        )
        if elapsed >= snapshot:
            save_snapshot(run, elapsed, budget.progress())
            snapshot = elapsed + a.snapshot_seconds
            print(
                f"step {run.step}, {elapsed:.0f} s: loss {loss:.4f}, lr {lr:.2e}, "
                f"{speed:.0f} samples/s",
                flush=True,
            )
        if elapsed >= validation:
            log.write_losses(run.step, elapsed, publish(run, elapsed, check=False))
            validation = elapsed + a.validate_seconds
        since, at = run.step, budget.elapsed()
    if run.step == 0:
        raise EcgDiffError("The time was over before the first step; give more --minutes.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit status: 0 if the weights written are good."""
    a = _parser().parse_args(arguments)
    # TF32 stays off: with bfloat16 for all other matrices only S4D's kernels would lose by it.
    s4.TOEPLITZ_LENGTH = a.toeplitz
    budget = Budget(60 * a.minutes)
    terminated: list[int] = []
    previous = signal.getsignal(signal.SIGTERM)
    try:
        _check_folder(a)
        run = Run(_settings(a), a)
        if a.resume:
            budget.used, budget.before = load_snapshot(run)
        log = Log(a.out / "log.csv", list(run.averages), run.step, run.views)
        run.prepare()
        # Until here the signal ends the process at once: there is nothing to save.
        signal.signal(signal.SIGTERM, lambda number, _: terminated.append(number))
        budget.start()
        print(f"step {run.step}: ready after {budget.elapsed() - budget.used:.0f} s", flush=True)
        train(run, budget, log, lambda: bool(terminated))
        save_snapshot(run, budget.elapsed(), budget.progress())
        elapsed = budget.elapsed()
        log.write_losses(run.step, elapsed, publish(run, elapsed, check=True))
    except (EcgDiffError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        signal.signal(signal.SIGTERM, previous)
    print(f"step {run.step}: wrote {a.out / 'weights'}, read back and compared", flush=True)
    if a.draws:
        write_acceptance(run, a.draws)
        print(f"wrote {a.out / 'acceptance.json'} and draws.npz after {budget.elapsed():.0f} s")
    return 0


def _check_folder(a: argparse.Namespace) -> None:
    """A new run beside an older one's snapshots would lose its own to them."""
    if not a.resume and any((a.out / "snapshots").glob("step-*.pt")):
        raise CheckpointError(
            f"{a.out} has snapshots of an earlier run; give --resume to go on, or another --out."
        )


def _settings(a: argparse.Namespace) -> dict[str, Any]:
    """The settings as :class:`ecgdiff.lightning.prior.DiffusionPrior` has them."""
    return {
        "preset": a.preset,
        "channels": 8,
        "scale": a.scale,
        "objective": "edm",
        "sigma_log_mean": 0.9,
        "sigma_log_std": 1.6,
        "uniform_share": 0.2,
        "uniform_range": [0.005, 160.0],
        "lr": a.lr,
        "final_rate": FINAL,
        "betas": [0.9, 0.99],
        "weight_decay": a.weight_decay,
        "warmup": 0,
        "seed": a.seed,
        "lengths": a.lengths,
        "gain": a.gain,
        "inpainting": a.shown != 0,
        "shown": a.shown or None,
        "start": a.start,
    }


def _numbers(kind: type) -> Callable[[str], list[Any]]:
    def numbers(text: str) -> list[Any]:
        return [kind(v) for v in text.split(",")]

    return numbers


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder of the parts of training/pack.py")
    add("--out", type=Path, required=True)
    add("--preset", choices=list(PRESETS), default="base")
    add("--minutes", type=float, required=True, help="budget, processes before --resume included")
    add("--batch", type=int, default=256)
    add("--lr", type=float, default=1e-3)
    add("--weight-decay", type=float, default=0.01)
    add("--lengths", type=_numbers(int), default=[1000], help="such as 1000,256: in turn")
    add("--gain", type=_numbers(float), default=[0.8, 1.25], help="of a record; 1,1 for none")
    add("--decays", type=_numbers(float), default=[0.999, 0.9999], help="of the averages")
    add("--shown", type=float, default=0.0, help="share of records shown an observation; 0: none")
    add("--scale", type=float, default=0.236, help="mV per model unit")
    add("--start", help="a checkpoint folder whose weights to start from")
    add("--resume", action="store_true", help="go on from the newest snapshot in --out")
    add("--device", default="cuda")
    add("--compile", choices=COMPILE, default="default")
    add("--toeplitz", type=int, default=s4.TOEPLITZ_LENGTH, help="longer sequences take the FFT")
    add("--seed", type=int, default=0)
    add("--validation-records", type=int, default=512)
    add("--draws", type=int, default=512, help="for the checks after the last step; 0: no checks")
    add("--log-steps", type=int, default=50)
    add("--snapshot-seconds", type=float, default=60.0)
    add("--validate-seconds", type=float, default=180.0)
    return parser


if __name__ == "__main__":
    sys.exit(main())
