r"""Training the diffusion prior.

Two objectives. `edm` (default) draws :math:`\sigma` log-normally, mixed with a log-uniform share
over all levels that samplers use, and fits the preconditioned network F to

.. math:: (x_0 - c_{skip} x) / c_{out}, \qquad x = x_0 + \sigma \epsilon,

which weights the denoising error by :math:`1 / c_{out}^2`. `eps` (the paper's) draws an integer
level uniformly and predicts the noise. ECG energy sits in few directions, so a draw's amplitude is
decided at :math:`\sigma` of 3 to 80
standard deviations: the log-normal is centered far above the values published for images.

Every random number of a step follows from (seed, step): a resumed run is the same run, bit for
bit. Each process draws the numbers of the whole step and uses its own share, so that a run on two
processes is the run on one with twice the batch, but for rounding. The records lie on the device
of the network and are picked, cropped and varied there, and only the log waits for the device. The
patterns of what is observed are drawn on the host, while the device computes the step before.

References:
    | Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022),
      arXiv:2206.00364
    | Denoising Diffusion Probabilistic Models (Ho et al., 2020), arXiv:2006.11239
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from ecgdiff.diffusion.denoiser import Denoiser, EpsDenoiser, NetworkDenoiser
from ecgdiff.diffusion.inpainting import InpaintingDenoiser
from ecgdiff.diffusion.quality import BANDS
from ecgdiff.diffusion.schedule import Schedule
from ecgdiff.lightning.ema import WeightAverages
from ecgdiff.lightning.losses import draw_sigma, edm_loss, parameter_groups, varied
from ecgdiff.lightning.masks import check_patterns
from ecgdiff.lightning.share import Share
from ecgdiff.lightning.shown import inpainting_loss, validation_view, widened
from ecgdiff.lightning.training_run import lineage
from ecgdiff.lightning.validation import band_losses
from ecgdiff.models.crops import middle
from ecgdiff.models.sashimi import PRESETS, SaShiMi
from ecgdiff.prior import load_network

__all__ = ["DiffusionPrior"]


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
        final_rate: The learning rate at the end, as a fraction of its peak; 1 keeps it there.
        betas: Decay rates of AdamW's averages.
        weight_decay: On matrices only.
        warmup: Steps of linear warm-up.
        total_steps: Steps until the cosine has come down to the end.
        seed: Seed of noise and levels.
        lengths: Samples per window, one length per step in turn, at random places of the records;
            whole records if empty.
        gain: Range of a factor common to the leads of a record, log-uniform and drawn anew at
            every step.
        inpainting: Whether the network is shown observations, of random patterns
            (:mod:`ecgdiff.lightning.masks`), and learns to denoise what was lost. Objective `edm`
            only.
        patterns: Names of the patterns if not their usual mixture.
        shown: The share of records of which something is shown, the usual mixture's 95 % if None.
            With less the network learns better what it does where it is shown nothing: as a prior.
        start: A prior of the same size to start from, by name or folder; random weights if None.
        compile: Compile the training graph; needs a C++ compiler, gives the same numbers to
            rounding. `reduce-overhead` records CUDA graphs, too.
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
        final_rate: float = 0.01,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.01,
        warmup: int = 500,
        total_steps: int = 10_000,
        seed: int = 0,
        lengths: Sequence[int] = (),
        gain: tuple[float, float] = (1.0, 1.0),
        inpainting: bool = False,
        patterns: Sequence[str] = (),
        shown: float | None = None,
        start: str | None = None,
        compile: bool | Literal["reduce-overhead"] = False,
    ) -> None:
        super().__init__()
        if total_steps <= warmup:
            raise ValueError(
                f"total_steps is {total_steps} and warmup {warmup}: give trainer.max_steps, the "
                "number of steps over which the learning rate comes down."
            )
        _check(objective, inpainting, patterns, shown, gain)
        self.save_hyperparameters()
        self.schedule = Schedule.linear()
        # The embedding works on a scale of 0..1000: levels as they are, ln(sigma) / 4 stretched.
        self.t_scale = 1.0 if objective == "eps" else 400.0
        size: dict[str, Any] = PRESETS[preset]
        context = channels if inpainting else 0
        self.net = SaShiMi(channels=channels, t_scale=self.t_scale, context=context, **size)
        if wrong := [n for n in lengths if n < 1 or n % self.net.multiple]:
            raise ValueError(f"lengths must be multiples of {self.net.multiple}, got {wrong[0]}.")
        self.earlier: dict[str, Any] | None = None
        if start is not None:
            net, config = load_network(start)
            if (config["objective"], config["scale_mv"]) != (objective, scale):
                raise ValueError(
                    f"The prior {start} has objective {config['objective']} and scale "
                    f"{config['scale_mv']}, not {objective} and {scale}."
                )
            self.net.load_state_dict(widened(net.state_dict(), self.net))
            self.earlier = lineage(config)
        # In a tuple, so that the compiled twin is not registered as a second module.
        self._train_net: tuple[Any] = (_compiled(self.net, compile),)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps what the weights were trained on before, for the card."""
        checkpoint["earlier"] = self.earlier

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """A resumed run started where the run that it continues started."""
        self.earlier = checkpoint.get("earlier")

    def on_fit_start(self) -> None:
        """Refuses what would feed the same records and noise twice; moves the records."""
        if self.trainer.accumulate_grad_batches != 1:
            raise ValueError("accumulate_grad_batches must be 1: raise data.batch_size instead.")
        if str(self.trainer.precision).startswith("16"):
            raise ValueError(
                "Half precision scales its gradients, which are then clipped wrongly: give "
                "trainer.precision bf16-mixed or 32-true."
            )
        samples = self.trainer.datamodule.train_set.shape[-1]  # type: ignore[attr-defined]
        if (longest := max(self.hparams["lengths"], default=0)) > samples:
            raise ValueError(f"lengths has {longest}; the records have {samples} samples.")
        self.trainer.datamodule.move(self.device)  # type: ignore[attr-defined]

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
        share = Share(self.hparams["seed"], step, rank, ranks, self.device)
        x0 = self._varied(self.to_units(data.train_batch(step, rank, ranks)), share)
        noise = share.normal(x0.shape)
        if self.hparams["inpainting"]:
            loss = self._inpainting_loss(x0, noise, share)
        elif self.hparams["objective"] == "eps":
            loss = self._eps_loss(x0, noise, share)
        else:
            loss = edm_loss(self._train_net[0], x0, self._levels(x0, share), noise)
        # Of all processes: each has a share of the records, and of what is lost another share.
        self.log("loss", loss, prog_bar=True, sync_dist=True)
        return loss

    def _varied(self, x0: Tensor, share: Share) -> Tensor:
        """The window of this step and a gain per record."""
        lengths = self.hparams["lengths"] or [x0.shape[-1]]
        return varied(x0, lengths[share.step % len(lengths)], self.hparams["gain"], share)

    def to_units(self, microvolts: Tensor) -> Tensor:
        """Converts int16 microvolts to model units."""
        return microvolts.float() / (1000.0 * self.hparams["scale"])

    def _levels(self, x0: Tensor, share: Share) -> Tensor:
        return share.mine(self.draw_sigma(share.count(x0), share.generator))[:, None, None]

    def _inpainting_loss(self, x0: Tensor, noise: Tensor, share: Share) -> Tensor:
        sigma, h = self._levels(x0, share), self.hparams
        net = self._train_net[0]
        return inpainting_loss(net, x0, sigma, noise, share, h["patterns"], h["shown"])

    def draw_sigma(self, count: int, generator: torch.Generator) -> Tensor:
        """Draws `count` noise levels from the training distribution."""
        h = self.hparams
        mean, std = h["sigma_log_mean"], h["sigma_log_std"]
        share, ends = h["uniform_share"], h["uniform_range"]
        return draw_sigma(count, mean, std, share, ends, generator, generator.device)

    def _eps_loss(self, x0: Tensor, noise: Tensor, share: Share) -> Tensor:
        t = 1 + share.integers(self.schedule.T, len(x0))
        alpha, std = self.schedule.alpha(t), self.schedule.std(t)
        x_t = alpha.to(x0)[:, None, None] * x0 + std.to(x0)[:, None, None] * noise
        return nn.functional.mse_loss(self._train_net[0](x_t, t - 1), noise)

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        """Denoising loss per noise band with every averaged set of weights, on fixed noise."""
        whole = self.to_units(batch)
        for callback in self._averages():
            for decay in callback.decays:
                with callback.swapped(self, decay):
                    self.net.eval()
                    for x0, note in self._windows(whole):
                        losses = band_losses(*self.to_validate(x0, batch_idx), batch_idx)
                        self._log_losses(f"val_{decay}{note}", losses, len(x0))

    def _windows(self, whole: Tensor) -> Iterator[tuple[Tensor, str]]:
        """The middle of each record at every length, and a note for all but the longest."""
        lengths = sorted(self.hparams["lengths"] or [whole.shape[-1]], reverse=True)
        for length in lengths:
            yield middle(whole, length), "" if length == lengths[0] else f"_{length}"

    def _log_losses(self, name: str, losses: Sequence[float], count: int) -> None:
        values = {f"{name}/{s:.3g}": v for s, v in zip(BANDS, losses, strict=True)}
        values[name] = sum(losses) / len(losses)
        self.log_dict(values, sync_dist=True, batch_size=count)

    def to_validate(self, x0: Tensor, number: int) -> tuple[Denoiser, Tensor, Tensor | None]:
        """The denoiser, the clean signals and, if it is shown some of them, what it is not shown.

        Arguments:
            x0: Clean signals in model units, shape (batch, leads, time).
            number: The number of the batch, which fixes what is shown.
        """
        denoiser = self.denoiser()
        if not isinstance(denoiser, InpaintingDenoiser):
            return denoiser, x0, None
        return validation_view(denoiser, x0, number)

    def _averages(self) -> Iterator[WeightAverages]:
        return (c for c in self.trainer.callbacks if isinstance(c, WeightAverages))  # type: ignore[attr-defined]

    def configure_optimizers(self) -> Any:
        """AdamW on matrices, state-space parameters and the rest, with warm-up and cosine."""
        h = self.hparams
        groups = parameter_groups(self, h["lr"], h["weight_decay"])
        optimizer = torch.optim.AdamW(groups, lr=h["lr"], betas=h["betas"], fused=True)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self.rate)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips the norm of all gradients; the trainer's own way refuses fused optimizers."""
        if gradient_clip_algorithm not in (None, "norm"):
            raise ValueError(f"Gradients are clipped by norm, not by {gradient_clip_algorithm}.")
        if gradient_clip_val:
            nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val)

    def rate(self, step: int) -> float:
        """The learning rate at a step, as a fraction of its peak."""
        warmup, total = self.hparams["warmup"], self.hparams["total_steps"]
        if step < warmup:
            return (step + 1) / warmup
        progress = min(1.0, (step - warmup) / max(1, total - warmup))
        final = self.hparams["final_rate"]
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))


def _check(
    objective: str,
    inpainting: bool,
    patterns: Sequence[str],
    shown: float | None,
    gain: tuple[float, float],
) -> None:
    """Refuses settings that would be ignored or train wrongly."""
    if inpainting and objective != "edm":
        raise ValueError("A network that is shown observations is trained with objective edm.")
    if patterns and not inpainting:
        raise ValueError("patterns say what is not shown to the network: give inpainting, too.")
    if shown is not None and not inpainting:
        raise ValueError("shown says how often something is shown: give inpainting, too.")
    check_patterns(patterns, shown)
    if not 0 < gain[0] <= gain[1]:
        raise ValueError(f"gain is a range of positive factors, got {gain[0]} to {gain[1]}.")


def _compiled(net: SaShiMi, how: bool | str) -> Any:
    # A graph per length: windows have one or two, and one graph for all lengths is slower.
    return torch.compile(net, mode=None if how is True else how, dynamic=False) if how else net
