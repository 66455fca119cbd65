"""What training/slot.py trains: network, averages and records on one device, a step at a time."""

import argparse
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from pack import read_parts
from torch import Tensor, nn

from ecgdiff.diffusion.denoiser import NetworkDenoiser
from ecgdiff.diffusion.inpainting import InpaintingDenoiser
from ecgdiff.diffusion.schedule import Schedule
from ecgdiff.errors import CheckpointError, DataError
from ecgdiff.lightning import validation
from ecgdiff.lightning.losses import draw_sigma, edm_loss, parameter_groups, varied
from ecgdiff.lightning.masks import check_patterns
from ecgdiff.lightning.share import Share
from ecgdiff.lightning.shown import inpainting_loss, validation_view, widened
from ecgdiff.lightning.training_run import lineage
from ecgdiff.models.crops import middle
from ecgdiff.models.sashimi import PRESETS, SaShiMi
from ecgdiff.prior import load_network

__all__ = ["MEAN", "VALIDATION_FOLD", "Losses", "Run", "band_losses"]

VALIDATION_FOLD, VALIDATION_BATCH = 9, 64
MEAN, NOTHING, SHOWN = "", "_nothing", "_shown"
"""What validation shows a network, as in the names of the log's columns; the mean of both."""
Losses: TypeAlias = dict[str, list[float]]
"""Per view the losses at the levels of `BANDS`; only `MEAN` if nothing is ever shown."""


class Run:
    """Creates what a run holds: network, averages, optimizer and records, on one device.

    Arguments:
        h: Its settings, those of :class:`ecgdiff.lightning.prior.DiffusionPrior`.
        a: The arguments of the command.
    """

    def __init__(self, h: dict[str, Any], a: argparse.Namespace) -> None:
        self.h, self.a, self.device, self.step = h, a, torch.device(a.device), 0
        torch.manual_seed(h["seed"])
        size = {"channels": h["channels"], "context": h["channels"] if h["inpainting"] else 0}
        self.network: dict[str, Any] = {**size, "t_scale": 400.0, **PRESETS[h["preset"]]}
        self.views = (MEAN, NOTHING, SHOWN) if h["inpainting"] else (MEAN,)
        net, self.earlier = SaShiMi(**self.network), None
        if a.start:
            self.earlier = _start(net, a.start, h["scale"])
        try:
            check_patterns((), h["shown"])
        except ValueError as error:
            raise DataError(f"--shown: {error}") from error
        if not 0 < h["gain"][0] <= h["gain"][1]:
            raise DataError(f"--gain is a range of positive factors, got {h['gain']}.")
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
        self.restarts, self._since = 0, 0
        # The loss of all steps since the last look that were finite, and how many were not.
        self.total, self.left_out = torch.zeros(2, device=self.device)

    @property
    def cut(self) -> float:
        """What is left of the peak rates after the run went back to snapshots."""
        return 0.5**self.restarts

    def free_rates(self) -> None:
        """Makes the learning rates tensors, which graphs read anew at every step."""
        for group in self.optimizer.param_groups:
            group["lr"] = torch.zeros((), device=self.device)

    def _compiled(self) -> Any:
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
        self.held = middle(samples[~train], length)
        count_held = len(self.held)
        picked = torch.linspace(0, count_held - 1, min(self.a.validation_records, count_held))
        self.validation = self.unit * self.held[picked.long()].float()
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
        x0 = varied(self.unit * self.records[self.rows()], length, self.h["gain"], share)
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
        sigma = sigma[:, None, None]
        with torch.autocast(self.device.type, torch.bfloat16):
            if self.h["inpainting"]:
                shown = self.h["shown"]
                return inpainting_loss(self.called, x0, sigma, noise, share, shown=shown)
            return edm_loss(self.called, x0, sigma, noise)

    def prepare(self) -> None:
        """Compiles for every length, before the schedule starts; goes on without if that fails."""
        try:
            self._try_lengths()
        except torch.cuda.OutOfMemoryError:
            raise  # without the compiler it would take more
        except Exception as error:  # compilers fail in many ways: theirs, the system's, torch's
            if self.called is self.net:
                raise
            print(f"Compiling failed, going on without: {error!r:.1000}", flush=True)
            self.called = self.net
            self._try_lengths()

    def _try_lengths(self) -> None:
        for length in self.h["lengths"]:
            self.optimizer.zero_grad()
            self.loss(length).backward()
        self.optimizer.zero_grad()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def train_step(self, fraction: float) -> None:
        """One step at a fraction of the peak rates; nothing here waits for the device.

        A step whose loss or gradient is not finite changes no weight.
        """
        if self.a.compile == "reduce-overhead":
            torch.compiler.cudagraph_mark_step_begin()
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"].fill_(peak * self.cut * fraction)
        loss = self.loss(self.h["lengths"][self.step % len(self.h["lengths"])])
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.parameters, 1.0)
        fine = norm.isfinite() & loss.detach().isfinite()
        # Clipped by an infinite norm, gradients are NaN: the fused optimizer looks at this flag on
        # the device and leaves the step out.
        self.optimizer.found_inf = (~fine).float()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.total += torch.where(fine, loss.detach(), 0.0)
        self.left_out += ~fine
        self.step += 1
        self._since += 1
        with torch.no_grad():
            for decay, average in self.averages.items():
                keep = min(decay, (1 + self.step) / (10 + self.step))
                torch._foreach_lerp_(average, self.parameters, 1 - keep)

    def mean_loss(self) -> float:
        """The mean loss of the steps since the last call, those that were left out excepted.

        Raises:
            FloatingPointError: If half of the steps or more were left out.
        """
        total, left_out = torch.stack([self.total, self.left_out]).tolist()
        steps, self._since = self._since, 0
        self.total.zero_()
        self.left_out.zero_()
        if 2 * left_out >= steps:
            raise FloatingPointError(
                f"The loss is not finite in {left_out:.0f} of {steps} steps up to {self.step}."
            )
        if left_out:
            print(f"step {self.step}: {left_out:.0f} steps were not finite and left out")
        return float(total / (steps - left_out))

    def averaged(self, decay: float) -> SaShiMi:
        """A network of its own with one average."""
        twin = SaShiMi(**self.network).to(self.device).eval().requires_grad_(False)
        for own, value in zip(twin.parameters(), self.averages[decay], strict=True):
            own.copy_(value)
        return twin

    def losses(self, nets: Sequence[SaShiMi]) -> list[Losses]:
        """The validation losses of each network, for every view."""
        plain = band_losses(nets, self.validation, self.device)
        if not self.h["inpainting"]:
            return [{MEAN: values} for values in plain]
        shown = band_losses(nets, self.validation, self.device, shown=True)
        return [
            {MEAN: np.mean([a, b], axis=0).tolist(), NOTHING: a, SHOWN: b}
            for a, b in zip(plain, shown, strict=True)
        ]


def _start(net: SaShiMi, folder: str, scale: float) -> dict[str, Any]:
    """Takes the weights of a checkpoint folder; returns what they were trained on."""
    found, config = load_network(folder)
    try:
        net.load_state_dict(widened(found.state_dict(), net))
    except RuntimeError as error:
        raise CheckpointError(f"{folder} holds a network of another size: {error}") from error
    if (config["objective"], config["scale_mv"]) != ("edm", scale):
        raise CheckpointError(
            f"{folder} has objective {config['objective']} and {config['scale_mv']} mV per unit; "
            f"the run has edm and {scale} mV."
        )
    return lineage(config)


def band_losses(
    nets: Sequence[SaShiMi], x0: Tensor, device: torch.device, *, shown: bool = False
) -> list[list[float]]:
    """Validation losses per network and level of `BANDS`, averaged over records.

    Arguments:
        nets: Networks on `device`, in evaluation mode.
        x0: Clean signals in model units, shape (records, leads, time), on the CPU.
        device: Where to compute.
        shown: Whether the networks, with a second input then, are shown what Lightning's
            validation shows; the losses are those of what was lost. Else they are shown nothing.
    """
    batches = x0.split(VALIDATION_BATCH)
    found = [
        [_batch_losses(net, x.to(device), number, shown) for number, x in enumerate(batches)]
        for net in nets
    ]
    means: list[list[float]] = np.average(
        found, axis=1, weights=[len(x) for x in batches]
    ).tolist()
    return means


def _batch_losses(net: SaShiMi, x0: Tensor, number: int, shown: bool) -> list[float]:
    schedule = Schedule.linear()
    if not net.context:
        return validation.band_losses(NetworkDenoiser(net, schedule), x0, None, number)
    denoiser = InpaintingDenoiser(net, schedule)
    if not shown:
        return validation.band_losses(denoiser, x0, None, number)
    return validation.band_losses(*validation_view(denoiser, x0, number), number)
