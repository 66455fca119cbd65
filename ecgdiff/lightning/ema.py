r"""Averaged weights, several decays at a time.

After step k the average moves by :math:`\theta' \leftarrow d\,\theta' + (1 - d)\,\theta` with
:math:`d = \min(decay, (1 + k) / (10 + k))`, so that early averages forget the initial weights.

References:
    | Denoising Diffusion Probabilistic Models (Ho et al., 2020), arXiv:2006.11239
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from ecgdiff.models.s4 import S4D

__all__ = ["WeightAverages"]


class WeightAverages(pl.Callback):
    """Creates the averages; they are saved in checkpoints and resume bit for bit.

    Arguments:
        decays: One average is kept per decay.
    """

    def __init__(self, decays: Sequence[float] = (0.999, 0.9995)) -> None:
        self.decays = tuple(decays)
        self._averages: dict[float, dict[str, Tensor]] = {}
        self._step = -1

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts every average at the current weights, unless a checkpoint brought them."""
        named = dict(pl_module.named_parameters())
        for decay in self.decays:
            known = self._averages.get(decay)
            source = known if known is not None else named
            self._averages[decay] = {
                k: v.detach().to(named[k].device, copy=True) for k, v in source.items()
            }

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: object
    ) -> None:
        """Moves the averages once per optimizer step."""
        step = trainer.global_step
        if step == self._step:
            return
        self._step = step
        weights = [p.detach() for p in pl_module.parameters()]
        for decay, average in self._averages.items():
            keep = min(decay, (1 + step) / (10 + step))
            torch._foreach_lerp_(list(average.values()), weights, 1 - keep)

    @contextmanager
    def swapped(self, module: nn.Module, decay: float) -> Iterator[None]:
        """Puts one average in place of the module's weights for the length of a `with` block."""
        average = self._averages[decay]
        kept = {k: p.detach().clone() for k, p in module.named_parameters()}
        _put(module, average)
        try:
            yield
        finally:
            _put(module, kept)

    def state_dict(self) -> dict[str, Any]:
        """Returns the averages for the checkpoint."""
        return {"averages": {str(d): a for d, a in self._averages.items()}, "step": self._step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes the averages from a checkpoint."""
        self._averages = {float(d): dict(a) for d, a in state_dict["averages"].items()}
        self._step = state_dict["step"]


@torch.no_grad()
def _put(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    for k, p in module.named_parameters():
        p.copy_(weights[k])
    # Spectra kept for inference would be those of the weights before.
    for layer in module.modules():
        if isinstance(layer, S4D):
            layer.clear_cache()
