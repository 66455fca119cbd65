r"""Training the U-Net controls: a regression, or marginal quantiles with the same body.

Both are shown part of a record, with noise, and answer for what the benchmark hides: everything
but lead I, one half of a 2.56 s window with nothing outside it, or V1-V3.

**Regression** (no `levels`) minimizes over lost samples the absolute error and that of the first
difference, :math:`|\hat x_t - x_t| + |(\hat x_t - \hat x_{t-1}) - (x_t - x_{t-1})|`, so it tends
to the median of each sample.

**Quantiles** minimize twice the mean pinball loss over the levels :math:`\tau`,

.. math:: 2 \, \mathrm{mean}_\tau \, (x - q_\tau)(\tau - 1\{x < q_\tau\})
          = \mathrm{mean}_\tau \bigl[ |x - q_\tau| + (2 \tau - 1)(x - q_\tau) \bigr],

which is smallest when each :math:`q_\tau` is the quantile of its level, and with ever more evenly
spaced levels tends to the continuous ranked probability score.

Every record counts the same, however much of it was lost. Every random number of a step follows
from (seed, step, rank): a resumed run is the same run.

References:
    | Regression Quantiles (Koenker and Bassett, 1978), doi:10.2307/1913643
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from ecgdiff.ecg.leads import LEADS_8
from ecgdiff.lightning.seeds import step_seed
from ecgdiff.models.crops import random_crops
from ecgdiff.models.unet1d import WIDTHS, UNet1d

__all__ = ["PATTERNS", "UNetRegression", "draw_patterns", "errors", "pattern"]

PATTERNS = {"leads": 0.5, "block": 0.35, "precordial": 0.15}
"""What is lost, and how often in training."""

WINDOW = 256


class UNetRegression(pl.LightningModule):
    """Creates the module that trains :class:`ecgdiff.models.unet1d.UNet1d` as a control.

    Arguments:
        levels: The levels of the quantiles, ascending; a regression if empty.
        scale: mV per model unit: the standard deviation of the training signals.
        noise: The standard deviation of the noise of what is shown, mV.
        crop: Length of training crops in samples.
        widths: Channels of the levels of the network.
        kernel: Length of its convolutions in samples.
        lr: Peak learning rate.
        weight_decay: Decoupled.
        warmup: Steps of linear warm-up.
        total_steps: Steps until the cosine has come down to 1 % of the peak.
        seed: Seed of crops, patterns and noise.
    """

    levels: Tensor

    def __init__(
        self,
        levels: Sequence[float] = (),
        scale: float = 0.236,
        noise: float = 0.02,
        crop: int = 512,
        widths: Sequence[int] = WIDTHS,
        kernel: int = 9,
        lr: float = 1e-3,
        weight_decay: float = 0.01,
        warmup: int = 200,
        total_steps: int = 8000,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if total_steps <= warmup:
            raise ValueError(
                f"total_steps is {total_steps} and warmup {warmup}: give trainer.max_steps, the "
                "number of steps over which the learning rate comes down."
            )
        if crop < WINDOW:
            raise ValueError(f"A crop must hold a window of {WINDOW} samples, got {crop}.")
        if any(a >= b for a, b in pairwise([0.0, *levels, 1.0])):
            raise ValueError(f"Levels must ascend strictly inside (0, 1), got {list(levels)}.")
        self.save_hyperparameters()
        self.net = UNet1d(len(LEADS_8), max(1, len(levels)), widths, kernel)
        self.register_buffer("levels", torch.tensor(list(levels)), persistent=False)

    def to_units(self, microvolts: Tensor) -> Tensor:
        """Converts int16 microvolts to model units."""
        return microvolts.float() / (1000.0 * self.hparams["scale"])

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """Loss of one step; the records come from the data module by step number."""
        step, rank, ranks = self.global_step, self.global_rank, self.trainer.world_size
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        generator = torch.Generator().manual_seed(step_seed(self.hparams["seed"], step, rank))
        samples = data.train_batch(step, rank, ranks)
        samples = random_crops(samples, self.hparams["crop"], generator)
        x0 = self.to_units(samples.to(self.device))
        mask, lost = draw_patterns((x0.shape[0], x0.shape[1], x0.shape[2]), generator)
        out = self._answer(x0, mask, generator)
        loss = self.loss(out, x0, lost.to(self.device))
        self.log("loss", loss, prog_bar=True)
        return loss

    def _answer(self, x0: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
        """Curves of the lost samples, from the others with noise."""
        noise = torch.randn(x0.shape, generator=generator).to(x0)
        y = x0 + self.hparams["noise"] / self.hparams["scale"] * noise
        return self.net(y, mask.to(x0.device)).float()

    def error(self, out: Tensor, x0: Tensor, lost: Tensor) -> Tensor:
        """Mean over lost samples of the absolute error, or of twice the pinball loss.

        Arguments:
            out: The curves, with shape (batch, curves, leads, time), model units.
            x0: The truth, with shape (batch, leads, time), model units.
            lost: Which samples count, bool, same shape.
        """
        gap = x0[:, None] - out
        sizes = gap.abs()
        if len(self.levels):
            sizes = sizes + (2 * self.levels[:, None, None] - 1) * gap
        return (sizes.mean(1) * _weights(lost)).sum()

    def loss(self, out: Tensor, x0: Tensor, lost: Tensor) -> Tensor:
        """What is minimized: :meth:`error`, of a regression also that of first differences."""
        loss = self.error(out, x0, lost)
        if len(self.levels):
            return loss
        inside = lost[..., 1:] & lost[..., :-1]
        return loss + self.error(out.diff(dim=-1), x0.diff(dim=-1), inside)

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        """Error per pattern on whole validation records, in mV, with fixed patterns and noise."""
        values = {f"val_{k}": v for k, v in errors(self, batch, batch_idx).items()}
        values["val_error"] = sum(values.values()) / len(values)
        self.log_dict(values, sync_dist=True, batch_size=len(batch))

    def configure_optimizers(self) -> Any:
        """AdamW with warm-up and cosine."""
        h = self.hparams
        optimizer = torch.optim.AdamW(
            self.parameters(), lr=h["lr"], weight_decay=h["weight_decay"]
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self.rate)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def rate(self, step: int) -> float:
        """The learning rate of a step as a share of its peak."""
        warmup, total = self.hparams["warmup"], self.hparams["total_steps"]
        if step < warmup:
            return (step + 1) / warmup
        progress = min(1.0, (step - warmup) / (total - warmup))
        return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))


@torch.no_grad()
def errors(module: UNetRegression, microvolts: Tensor, number: int) -> dict[str, float]:
    """Errors in mV on lost samples, per pattern, on whole records.

    Arguments:
        module: A module in evaluation mode.
        microvolts: Records in int16 microvolts, with shape (batch, leads, time).
        number: The number of the batch, which fixes blocks and noise.
    """
    x0, found = module.to_units(microvolts), {}
    for name in PATTERNS:
        generator = torch.Generator().manual_seed(number)
        pairs = [pattern(name, x0.shape[1], x0.shape[2], generator) for _ in x0]
        mask, lost = (torch.stack(part) for part in zip(*pairs, strict=True))
        error = module.error(module._answer(x0, mask, generator), x0, lost.to(x0.device))
        found[name] = float(error) * module.hparams["scale"]
    return found


def draw_patterns(
    shape: tuple[int, int, int], generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draws one pattern per item with the shares of :data:`PATTERNS`.

    Arguments:
        shape: (batch, leads, time), at least 256 samples long.
        generator: The source of randomness.

    Returns:
        What is observed and what is to be answered, bool, each of that shape.
    """
    names, shares = list(PATTERNS), torch.tensor(list(PATTERNS.values()))
    kinds = torch.multinomial(shares, shape[0], replacement=True, generator=generator)
    pairs = [pattern(names[k], shape[1], shape[2], generator) for k in kinds.tolist()]
    mask, lost = (torch.stack(part) for part in zip(*pairs, strict=True))
    return mask, lost


def pattern(name: str, leads: int, time: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draws one pattern: what is observed and what is to be answered, bool, (leads, time).

    Arguments:
        name: `leads` (lead I observed), `block` (one half of a window of 256 samples, somewhere,
            and nothing outside it) or `precordial` (V1-V3 lost).
        leads: The number of leads, in the order of :data:`ecgdiff.ecg.leads.LEADS_8`.
        time: The number of samples.
        generator: The source of randomness.
    """
    mask = torch.zeros(leads, time, dtype=torch.bool)
    if name == "block":
        start = int(torch.randint(time - WINDOW + 1, (), generator=generator))
        half = WINDOW // 2
        swapped = half * int(torch.randint(2, (), generator=generator))
        lost = torch.zeros_like(mask)
        mask[:, start + swapped : start + swapped + half] = True
        lost[:, start + half - swapped : start + WINDOW - swapped] = True
        return mask, lost
    first = {"leads": [0], "precordial": [0, 1, 5, 6, 7]}[name]
    mask[first] = True
    return mask, ~mask


def _weights(lost: Tensor) -> Tensor:
    """Weights that sum to one, the same for every record, evenly over its lost samples."""
    return lost / (lost.sum((1, 2), keepdim=True).clamp(min=1) * len(lost))
