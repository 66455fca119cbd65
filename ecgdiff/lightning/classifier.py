"""Training the classifier of statements, on random crops with one learning-rate cycle.

Every random number of a step follows from (seed, step, rank): a resumed run is the same run.

References:
    | Deep Learning for ECG Analysis: Benchmarks and Insights from PTB-XL (Strodthoff et al.,
      2020), arXiv:2004.13701
    | Super-Convergence (Smith and Topin, 2017), arXiv:1708.07120
"""

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor

from ecgdiff.data.statements import STATEMENTS
from ecgdiff.ecg.leads import LEADS_12
from ecgdiff.lightning.seeds import step_seed
from ecgdiff.models.crops import random_crops, window_logits
from ecgdiff.models.xresnet1d import XResNet1d

__all__ = ["StatementClassifier"]


class StatementClassifier(pl.LightningModule):
    """Creates the module that trains XResNet1d50 on all 71 statements at once.

    Arguments:
        leads: Names and order of the leads that it reads.
        scale: mV per model unit: the standard deviation of the training signals.
        crop: Length of training crops and of windows, in samples.
        lr: The peak of the cycle.
        weight_decay: Decoupled.
        total_steps: Length of the cycle.
        seed: Seed of crops and dropout.
        compile: Compile the training graph; needs a C++ compiler.
    """

    def __init__(
        self,
        leads: Sequence[str] = LEADS_12,
        scale: float = 0.236,
        crop: int = 250,
        lr: float = 1e-2,
        weight_decay: float = 1e-2,
        total_steps: int = 6800,
        seed: int = 0,
        compile: bool = False,
    ) -> None:
        super().__init__()
        if total_steps < 1:
            raise ValueError("Give trainer.max_steps: the learning-rate cycle needs its length.")
        self.save_hyperparameters()
        self.net = XResNet1d(len(leads), len(STATEMENTS))
        # In a tuple, so that the compiled twin is not registered as a second module.
        self._train_net: tuple[Any] = (torch.compile(self.net) if compile else self.net,)

    def to_units(self, microvolts: Tensor) -> Tensor:
        """Converts int16 microvolts to model units."""
        return microvolts.float() / (1000.0 * self.hparams["scale"])

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """Loss of one step; the records come from the data module by step number."""
        step, rank, ranks = self.global_step, self.global_rank, self.trainer.world_size
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        samples, labels = data.labelled_batch(step, rank, ranks)
        # Dropout draws from the global generator; seeded by the step it, too, resumes.
        torch.manual_seed(step_seed(self.hparams["seed"], step, rank))
        x = self.to_units(random_crops(samples, self.hparams["crop"]).to(self.device))
        logits = self._train_net[0](x).float()
        loss = F.binary_cross_entropy_with_logits(logits, labels.to(logits))
        self.log("loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: Sequence[Tensor], batch_idx: int) -> None:
        """Loss on whole validation records, read in windows."""
        samples, labels = batch
        logits = window_logits(self.net, self.to_units(samples), self.hparams["crop"])
        loss = F.binary_cross_entropy_with_logits(logits.float().mean(1), labels.float())
        self.log("val_loss", loss, prog_bar=True, sync_dist=True, batch_size=len(samples))

    def configure_optimizers(self) -> Any:
        """AdamW with one cycle of learning rate and momentum."""
        h = self.hparams
        optimizer = torch.optim.AdamW(
            self.parameters(), lr=h["lr"], betas=(0.95, 0.99), weight_decay=h["weight_decay"]
        )
        cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, h["lr"], h["total_steps"])
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}
