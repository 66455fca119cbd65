"""Trains a tiny prior on made-up records, on one process or two: what a user's command does.

    python two_processes.py DEVICES BATCH OUT [KILLED_AT [INPAINTING]]

Every process writes its losses to OUT/loss_RANK.json; the first one the weights to OUT/net.pt. A
run that finds OUT/last.ckpt goes on from there. After step KILLED_AT, if that is positive, the
process kills itself. INPAINTING is 0 or 1.
"""

import json
import os
import signal
import sys
from pathlib import Path
from unittest.mock import patch

import pytorch_lightning as pl
import torch

from ecgdiff.lightning import datamodule
from ecgdiff.lightning.datamodule import PTBXLDataModule
from ecgdiff.lightning.ema import WeightAverages
from ecgdiff.lightning.prior import DiffusionPrior
from ecgdiff.models import sashimi

STEPS = 6
TINY = {"d_model": 8, "n_layers": 1, "pool": (2,), "state": 8, "t_features": 8, "t_width": 8}


class Losses(pl.Callback):
    """Keeps the loss of every step, and dies after one of them."""

    def __init__(self, killed_at: int) -> None:
        self.found: list[float] = []
        self.killed_at = killed_at

    def on_train_batch_end(self, trainer: pl.Trainer, *args: object) -> None:
        self.found.append(float(trainer.callback_metrics["loss"]))
        if trainer.global_step == self.killed_at:
            os.kill(os.getpid(), signal.SIGKILL)


def main(devices: int, batch: int, out: Path, killed_at: int = -1, inpainting: int = 0) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(1)
    records = torch.randint(-300, 300, (40, 8, 64), generator=torch.Generator().manual_seed(0))
    with (
        patch.object(datamodule, "load_fold_set", lambda *_: (records.to(torch.int16), 0)),
        patch.dict(sashimi.PRESETS, {"small": TINY}),
    ):
        model = DiffusionPrior(
            scale=0.2,
            warmup=2,
            total_steps=STEPS,
            lengths=[64, 32],
            gain=(0.8, 1.25),
            inpainting=bool(inpainting),
        )
        losses = Losses(killed_at)
        saver = pl.callbacks.ModelCheckpoint(out, every_n_train_steps=2, save_last=True)
        last = out / "last.ckpt"
        trainer = pl.Trainer(
            accelerator="cpu",
            devices=devices,
            strategy="ddp" if devices > 1 else "auto",
            max_steps=STEPS,
            callbacks=[WeightAverages(), saver, losses],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,
            use_distributed_sampler=False,
            gradient_clip_val=1.0,
        )
        data = PTBXLDataModule(root="", batch_size=batch, steps_per_epoch=3)
        trainer.fit(model, data, ckpt_path=str(last) if last.exists() else None)
    (out / f"loss_{trainer.global_rank}.json").write_text(json.dumps(losses.found))
    if trainer.is_global_zero:
        torch.save(model.net.state_dict(), out / "net.pt")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), *map(int, sys.argv[4:]))
