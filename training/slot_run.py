"""What training/slot.py trains: network, averages and records on one device, a step at a time."""

import argparse
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from pack import read_parts
from torch import Tensor, nn

from ecgdiff.diffusion.denoiser import NetworkDenoiser
from ecgdiff.diffusion.schedule import Schedule
from ecgdiff.errors import CheckpointError, DataError
from ecgdiff.evaluation.prior_quality import BANDS
from ecgdiff.lightning.losses import draw_sigma, edm_loss, parameter_groups
from ecgdiff.lightning.share import Share
from ecgdiff.models.crops import crops, middle
from ecgdiff.models.sashimi import PRESETS, SaShiMi
from ecgdiff.prior import load_network

__all__ = ["VALIDATION_FOLD", "Run", "band_losses", "stored"]

VALIDATION_FOLD, VALIDATION_BATCH = 9, 64


class Run:
    """Creates what a run holds: network, averages, optimizer and records, on one device.

    Arguments:
        h: Its settings, those of :class:`ecgdiff.lightning.prior.DiffusionPrior`.
        a: The arguments of the command.
    """

    def __init__(self, h: dict[str, Any], a: argparse.Namespace) -> None:
        self.h, self.a, self.device, self.step = h, a, torch.device(a.device), 0
        torch.manual_seed(h["seed"])
        self.network = {"channels": h["channels"], "t_scale": 400.0, **PRESETS[h["preset"]]}
        net, self.earlier = SaShiMi(**self.network), None
        if a.start:
            self.earlier = _start(net, a.start, h["scale"])
        self.net = net.to(self.device)
        wrong = [n for n in h["lengths"] if n < 1 or n % net.multiple]
        if wrong:
            raise DataError(f"--lengths must be multiples of {net.multiple}, got {wrong[0]}.")
        self.parameters: list[Tensor] = list(self.net.parameters())
        self.averages = {
            decay: [p.detach().clone() for p in self.parameters] for decay in a.decays
        }
        groups = parameter_groups(self.net, h["lr"], h["weight_decay"])
        self.peaks = [group["lr"] for group in groups]
        self.optimizer = torch.optim.AdamW(groups, betas=tuple(h["betas"]), fused=True)
        self.free_rates()
        self.called = self._compiled()
        self._load_records()
        self.total = torch.zeros((), device=self.device)

    def free_rates(self) -> None:
        """Makes the learning rates tensors, which graphs read anew at every step."""
        for group in self.optimizer.param_groups:
            group["lr"] = torch.zeros((), device=self.device)

    def _compiled(self) -> Callable[[Tensor, Tensor], Tensor]:
        if self.a.compile == "off":
            return self.net
        mode = None if self.a.compile == "default" else self.a.compile
        return torch.compile(self.net, mode=mode, dynamic=False)

    def _load_records(self) -> None:
        packed = read_parts(self.a.data)
        held = packed.folds == VALIDATION_FOLD
        length = max(self.h["lengths"])
        if packed.samples.shape[-1] < length or not held.any():
            raise DataError(
                f"{self.a.data} has {held.sum()} records of fold {VALIDATION_FOLD} with "
                f"{packed.samples.shape[-1]} samples; the run needs some, with {length}."
            )
        if packed.folds.max() > VALIDATION_FOLD:
            raise DataError(f"{self.a.data} holds fold 10, which nothing may be trained on.")
        samples = torch.from_numpy(packed.samples)
        train = torch.from_numpy(~held)
        if (count := int(train.sum())) < self.a.batch:
            raise DataError(f"{count} training records cannot fill a batch; lower --batch.")
        self.unit = packed.step_uv / (1000.0 * self.h["scale"])
        self.records = samples[train].to(self.device)
        whole = samples[~train]
        picked = torch.linspace(0, len(whole) - 1, min(self.a.validation_records, len(whole)))
        self.validation = self.unit * middle(whole[picked.long()].float(), length)
        folds = sorted({int(fold) for fold in packed.folds[~held]})
        self.about = {
            "folds": folds,
            "records": count,
            "clipped_samples": sum(packed.clipped.get(fold, 0) for fold in folds),
        }
        self.leads, self.step_uv = packed.leads, packed.step_uv
        self._order = (-1, torch.empty(0, dtype=torch.int64))

    def rows(self) -> Tensor:
        """The places of this step's records: an epoch is a permutation of all."""
        epoch, position = divmod(self.step, len(self.records) // self.a.batch)
        if self._order[0] != epoch:
            generator = torch.Generator(self.device).manual_seed(
                self.h["seed"] * 1_000_003 + epoch
            )
            order = torch.randperm(len(self.records), generator=generator, device=self.device)
            self._order = epoch, order
        return self._order[1][position * self.a.batch :][: self.a.batch]

    def loss(self, length: int) -> Tensor:
        """The loss of this step's records, with noise that follows from seed and step."""
        share = Share(self.h["seed"], self.step, 0, 1, self.device)
        x0 = self.records[self.rows()]
        if length != x0.shape[-1]:
            x0 = crops(x0, share.integers(x0.shape[-1] - length + 1, len(x0)), length)
        low, high = (math.log(v) for v in self.h["gain"])
        x0 = x0 * (self.unit * (low + (high - low) * share.uniform((len(x0), 1, 1))).exp())
        noise = share.normal(x0.shape)
        sigma = draw_sigma(
            len(x0),
            self.h["sigma_log_mean"],
            self.h["sigma_log_std"],
            self.h["uniform_share"],
            self.h["uniform_range"],
            share.generator,
            self.device,
        )
        with torch.autocast(self.device.type, torch.bfloat16):
            return edm_loss(self.called, x0, sigma[:, None, None], noise)

    def prepare(self) -> None:
        """Compiles for every length, before the schedule starts."""
        for length in self.h["lengths"]:
            self.loss(length).backward()
            self.optimizer.zero_grad()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def train_step(self, fraction: float) -> None:
        """One step at a fraction of the peak rates; nothing here waits for the device."""
        if self.a.compile == "reduce-overhead":
            torch.compiler.cudagraph_mark_step_begin()
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"].fill_(peak * fraction)
        loss = self.loss(self.h["lengths"][self.step % len(self.h["lengths"])])
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.total += loss.detach()
        self.step += 1
        with torch.no_grad():
            for decay, average in self.averages.items():
                keep = min(decay, (1 + self.step) / (10 + self.step))
                torch._foreach_lerp_(average, self.parameters, 1 - keep)

    def averaged(self, decay: float) -> SaShiMi:
        """A network of its own with one average."""
        twin = SaShiMi(**self.network).to(self.device).eval().requires_grad_(False)
        for own, value in zip(twin.parameters(), self.averages[decay], strict=True):
            own.copy_(value)
        return twin


def _start(net: SaShiMi, folder: str, scale: float) -> dict[str, Any]:
    """Takes the weights of a checkpoint folder; returns what they were trained on."""
    found, config = load_network(folder)
    try:
        net.load_state_dict(found.state_dict())
    except RuntimeError as error:
        raise CheckpointError(f"{folder} holds a network of another size: {error}") from error
    if (config["objective"], config["scale_mv"]) != ("edm", scale):
        raise CheckpointError(
            f"{folder} has objective {config['objective']} and {config['scale_mv']} mV per unit; "
            f"the run has edm and {scale} mV."
        )
    before = config["training"]
    steps = before["steps"] + (before.get("earlier") or {"steps": 0})["steps"]
    return {"name": config["name"], "sha256": config["sha256"], "steps": steps}


@torch.no_grad()
def band_losses(nets: Sequence[nn.Module], x0: Tensor, device: torch.device) -> list[list[float]]:
    r"""Losses :math:`(1 + 1/\sigma^2) \, \mathrm{MSE}` per network and level of :data:`BANDS`.

    Noise and levels are those of `ecgdiff.lightning.prior.band_losses`, batch by batch.

    Arguments:
        nets: Networks on `device`, in evaluation mode.
        x0: Clean signals in model units, shape (records, leads, time), on the CPU.
        device: Where to compute.
    """
    schedule = Schedule.linear()
    denoisers = [NetworkDenoiser(net, schedule) for net in nets]
    totals = torch.zeros(len(nets), len(BANDS), dtype=torch.float64, device=device)
    for number, batch in enumerate(x0.split(VALIDATION_BATCH)):
        clean = batch.to(device)
        for band, sigma in enumerate(BANDS):
            t = schedule.index(sigma)
            exact = float(schedule.sigma(t))
            generator = torch.Generator().manual_seed(number * len(BANDS) + band)
            noise = torch.randn(batch.shape, generator=generator).to(clean)
            x_t = float(schedule.alpha(t)) * (clean + exact * noise)
            for k, denoiser in enumerate(denoisers):
                error = (denoiser(x_t, t) - clean).square().mean()
                totals[k, band] += len(batch) / len(x0) * (1 + exact**-2) * error
    return totals.tolist()


def stored(net: nn.Module) -> dict[str, Tensor]:
    """The weights as they are shipped: matrices in half precision, the rest not."""
    exact = {name for name, p in net.named_parameters() if getattr(p, "state_space", False)}
    return {
        name: value.half() if value.ndim == 2 and name not in exact else value
        for name, value in net.state_dict().items()
    }
