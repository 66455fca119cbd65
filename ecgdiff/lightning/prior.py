r"""Training the diffusion prior.

Two objectives. `edm` (default) draws :math:`\sigma` log-normally, mixed with a log-uniform share
over all levels that samplers use, and fits the preconditioned network F to

.. math:: (x_0 - c_{skip} x) / c_{out}, \qquad x = x_0 + \sigma \epsilon,

which weights the denoising error by :math:`1 / c_{out}^2`. `eps` (the paper's) draws an integer
level uniformly and predicts the noise. ECG energy sits in few directions, so a draw's amplitude is
decided at :math:`\sigma` of 3 to 80
standard deviations: the log-normal is centered far above the values published for images.

Every random number of a step follows from (seed, step, rank): a resumed run is the same run, bit
for bit.

References:
    | Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022),
      arXiv:2206.00364
    | Denoising Diffusion Probabilistic Models (Ho et al., 2020), arXiv:2006.11239
"""

import math
from collections.abc import Iterator
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from ecgdiff.diffusion.denoiser import Denoiser, EpsDenoiser, NetworkDenoiser
from ecgdiff.diffusion.inpainting import NOISE, InpaintingDenoiser, Seen, network_input, trust
from ecgdiff.diffusion.schedule import Schedule
from ecgdiff.lightning.ema import WeightAverages
from ecgdiff.lightning.masks import draw_masks, validation_masks
from ecgdiff.lightning.seeds import step_seed
from ecgdiff.models.sashimi import PRESETS, SaShiMi
from ecgdiff.prior import load_network

__all__ = ["BANDS", "DiffusionPrior", "band_losses"]

# Noise levels of the validation loss, in standard deviations of the data.
BANDS = tuple(math.exp(v) for v in torch.linspace(math.log(0.02), math.log(50.0), 8).tolist())

# The noise of observations shown in validation, in standard deviations of the data (0.02 mV).
VALIDATION_SIGMA_Y = 0.085


class DiffusionPrior(pl.LightningModule):
    """Creates the module that trains a SaShiMi network as a prior.

    Arguments:
        preset: A size named in :data:`ecgdiff.models.sashimi.PRESETS`.
        channels: The number of leads.
        scale: mV per model unit: the standard deviation of the training signals.
        objective: `edm` or `eps`.
        sigma_log_mean: Mean of ln sigma.
        sigma_log_std: Its standard deviation.
        uniform_share: The share of items whose ln sigma is uniform over `uniform_range` instead.
        uniform_range: Smallest and largest sigma of that share.
        lr: Peak learning rate; state-space parameters get at most 1e-3.
        weight_decay: On matrices only.
        warmup: Steps of linear warm-up.
        total_steps: Steps until the cosine has come down to 1 % of the peak.
        seed: Seed of noise and levels.
        inpainting: Whether the network is shown observations, of random patterns
            (:mod:`ecgdiff.lightning.masks`), and learns to denoise what was lost. Objective `edm`
            only.
        start: A prior of the same size to start from, by name or folder; random weights if None.
        compile: Compile the training graph; needs a C++ compiler, gives the same numbers to
            rounding.
    """

    def __init__(
        self,
        preset: str = "small",
        channels: int = 8,
        scale: float = 0.236,
        objective: Literal["edm", "eps"] = "edm",
        sigma_log_mean: float = 0.9,
        sigma_log_std: float = 1.6,
        uniform_share: float = 0.2,
        uniform_range: tuple[float, float] = (0.005, 160.0),
        lr: float = 1e-3,
        weight_decay: float = 0.01,
        warmup: int = 500,
        total_steps: int = 10_000,
        seed: int = 0,
        inpainting: bool = False,
        start: str | None = None,
        compile: bool = False,
    ) -> None:
        super().__init__()
        if total_steps <= warmup:
            raise ValueError(
                f"total_steps is {total_steps} and warmup {warmup}: give trainer.max_steps, the "
                "number of steps over which the learning rate comes down."
            )
        if inpainting and objective != "edm":
            raise ValueError("A network that is shown observations is trained with objective edm.")
        self.save_hyperparameters()
        self.schedule = Schedule.linear()
        # The embedding works on a scale of 0..1000: levels as they are, ln(sigma) / 4 stretched.
        self.t_scale = 1.0 if objective == "eps" else 400.0
        size: dict[str, Any] = PRESETS[preset]
        context = channels if inpainting else 0
        self.net = SaShiMi(channels=channels, t_scale=self.t_scale, context=context, **size)
        self.earlier: dict[str, Any] | None = None
        if start is not None:
            net, config = load_network(start)
            self.net.load_state_dict(_widened(net.state_dict(), self.net))
            before = config["training"]
            steps = before["steps"] + (before.get("earlier") or {"steps": 0})["steps"]
            self.earlier = {"name": config["name"], "sha256": config["sha256"], "steps": steps}
        # In a tuple, so that the compiled twin is not registered as a second module.
        self._train_net: tuple[Any] = (torch.compile(self.net) if compile else self.net,)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps what the weights were trained on before, for the card."""
        checkpoint["earlier"] = self.earlier

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """A resumed run started where the run that it continues started."""
        self.earlier = checkpoint.get("earlier")

    def on_fit_start(self) -> None:
        """Refuses what would feed the same records and noise twice."""
        if self.trainer.accumulate_grad_batches != 1:
            raise ValueError("accumulate_grad_batches must be 1: raise data.batch_size instead.")

    def denoiser(self) -> Denoiser:
        """The network as a denoiser of the standard schedule."""
        if self.hparams["inpainting"]:
            return InpaintingDenoiser(self.net, self.schedule)
        if self.hparams["objective"] == "eps":
            return EpsDenoiser(self.net, self.schedule)
        return NetworkDenoiser(self.net, self.schedule)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """Loss of one step; the records come from the data module by step number."""
        step, rank, ranks = self.global_step, self.global_rank, self.trainer.world_size
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        x0 = self.to_units(data.train_batch(step, rank, ranks).to(self.device))
        generator = torch.Generator().manual_seed(step_seed(self.hparams["seed"], step, rank))
        noise = torch.randn(x0.shape, generator=generator).to(x0)
        if self.hparams["inpainting"]:
            loss = self._inpainting_loss(x0, noise, generator)
        elif self.hparams["objective"] == "eps":
            loss = self._eps_loss(x0, noise, generator)
        else:
            loss = self._edm_loss(x0, noise, generator)
        self.log("loss", loss, prog_bar=True)
        return loss

    def to_units(self, microvolts: Tensor) -> Tensor:
        """Converts int16 microvolts to model units."""
        return microvolts.float() / (1000.0 * self.hparams["scale"])

    def _edm_loss(self, x0: Tensor, noise: Tensor, generator: torch.Generator) -> Tensor:
        sigma = self.draw_sigma(len(x0), generator).to(x0)[:, None, None]
        x = x0 + sigma * noise
        total = torch.hypot(sigma, torch.ones_like(sigma))
        target = (x0 - x / total**2) * total / sigma
        out = self._train_net[0](x / total, sigma.flatten().log() / 4)
        return nn.functional.mse_loss(out, target)

    def _inpainting_loss(self, x0: Tensor, noise: Tensor, generator: torch.Generator) -> Tensor:
        sigma = self.draw_sigma(len(x0), generator).to(x0)[:, None, None]
        mask = draw_masks((x0.shape[0], x0.shape[1], x0.shape[2]), generator).to(x0.device)
        low, high = (math.log(v) for v in NOISE)
        sigma_y = torch.rand((len(x0), 1, 1), generator=generator).mul(high - low).add(low).exp()
        sigma_y = sigma_y.to(x0)
        y = x0 + sigma_y * torch.randn(x0.shape, generator=generator).to(x0)
        x, total = x0 + sigma * noise, (sigma**2 + 1).sqrt()
        target = (x0 - x / total**2) * total / sigma
        out = self._train_net[0](
            network_input(x, sigma, y, mask), sigma.flatten().log() / 4, trust(mask, sigma_y)
        )
        return ((out - target).square() * ~mask).sum() / (~mask).sum()

    def draw_sigma(self, count: int, generator: torch.Generator) -> Tensor:
        """Draws `count` noise levels from the training distribution."""
        h = self.hparams
        low, high = (math.log(v) for v in h["uniform_range"])
        normal = h["sigma_log_mean"] + h["sigma_log_std"] * torch.randn(count, generator=generator)
        uniform = low + (high - low) * torch.rand(count, generator=generator)
        picked = torch.rand(count, generator=generator) < h["uniform_share"]
        return torch.where(picked, uniform, normal).exp()

    def _eps_loss(self, x0: Tensor, noise: Tensor, generator: torch.Generator) -> Tensor:
        t = torch.randint(1, self.schedule.T + 1, (len(x0),), generator=generator).to(x0.device)
        alpha, std = self.schedule.alpha(t), self.schedule.std(t)
        x_t = alpha.to(x0)[:, None, None] * x0 + std.to(x0)[:, None, None] * noise
        return nn.functional.mse_loss(self._train_net[0](x_t, t - 1), noise)

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        """Denoising loss per noise band with every averaged set of weights, on fixed noise."""
        x0 = self.to_units(batch)
        for callback in self._averages():
            for decay in callback.decays:
                with callback.swapped(self, decay):
                    self.net.eval()
                    losses = band_losses(*self.to_validate(x0, batch_idx), batch_idx)
                values = {f"val_{decay}/{s:.3g}": v for s, v in zip(BANDS, losses, strict=True)}
                values[f"val_{decay}"] = sum(losses) / len(losses)
                self.log_dict(values, sync_dist=True, batch_size=len(x0))

    def to_validate(self, x0: Tensor, number: int) -> tuple[Denoiser, Tensor, Tensor | None]:
        """The denoiser, the clean signals and, if it is shown some of them, what it is not shown.

        Arguments:
            x0: Clean signals in model units, shape (batch, leads, time).
            number: The number of the batch, which fixes what is shown.
        """
        denoiser = self.denoiser()
        if not isinstance(denoiser, InpaintingDenoiser):
            return denoiser, x0, None
        generator = torch.Generator().manual_seed(number)
        mask = validation_masks((x0.shape[0], x0.shape[1], x0.shape[2]), generator).to(x0.device)
        y = x0 + VALIDATION_SIGMA_Y * torch.randn(x0.shape, generator=generator).to(x0)
        return Seen(denoiser, y, mask, VALIDATION_SIGMA_Y), x0, ~mask

    def _averages(self) -> Iterator[WeightAverages]:
        return (c for c in self.trainer.callbacks if isinstance(c, WeightAverages))  # type: ignore[attr-defined]

    def configure_optimizers(self) -> Any:
        """AdamW on matrices, state-space parameters and the rest, with warm-up and cosine."""
        h = self.hparams
        groups: dict[str, list[nn.Parameter]] = {"matrix": [], "plain": [], "ssm": []}
        for parameter in self.parameters():
            if getattr(parameter, "state_space", False):
                groups["ssm"].append(parameter)
            else:
                groups["matrix" if parameter.ndim == 2 else "plain"].append(parameter)
        optimizer = torch.optim.AdamW(
            [
                {"params": groups["matrix"], "weight_decay": h["weight_decay"]},
                {"params": groups["plain"], "weight_decay": 0.0},
                {"params": groups["ssm"], "weight_decay": 0.0, "lr": min(1e-3, h["lr"])},
            ],
            lr=h["lr"],
            betas=(0.9, 0.99),
        )
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self.rate)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def rate(self, step: int) -> float:
        """The learning rate at a step, as a fraction of its peak."""
        warmup, total = self.hparams["warmup"], self.hparams["total_steps"]
        if step < warmup:
            return (step + 1) / warmup
        progress = min(1.0, (step - warmup) / max(1, total - warmup))
        return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))


def _widened(state: dict[str, Tensor], net: SaShiMi) -> dict[str, Tensor]:
    """Weights of a network without a second input, ignoring it where `net` has one."""
    wanted = net.state_dict()["input.weight"]
    missing = wanted.shape[1] - state["input.weight"].shape[1]
    padded = nn.functional.pad(state["input.weight"], (0, max(missing, 0)))
    return {**state, "input.weight": padded}


@torch.no_grad()
def band_losses(denoiser: Denoiser, x0: Tensor, lost: Tensor | None, seed: int) -> list[float]:
    r"""Losses :math:`(1 + 1/\sigma^2) \, \mathrm{MSE}` per level of :data:`BANDS`, on fixed noise.

    Arguments:
        denoiser: Denoiser in model units.
        x0: Clean signals in model units, shape (batch, leads, time).
        lost: Which samples count, bool, same shape; all if None.
        seed: The number of the batch; together with the band it fixes the noise.
    """
    losses = []
    for band, sigma in enumerate(BANDS):
        t = denoiser.schedule.index(sigma)
        exact = float(denoiser.schedule.sigma(t))
        generator = torch.Generator().manual_seed(seed * len(BANDS) + band)
        noise = torch.randn(x0.shape, generator=generator).to(x0)
        x_t = float(denoiser.schedule.alpha(t)) * (x0 + exact * noise)
        error = (denoiser(x_t, t) - x0).square()
        error = error.mean() if lost is None else error[lost].mean()
        losses.append(float(error) * (1 + exact**-2))
    return losses
