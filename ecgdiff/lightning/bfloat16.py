"""A word where a training asks for bfloat16 and its processor loses by it."""

import logging

import pytorch_lightning as pl

from ecgdiff.models.autocast import slowdown

__all__ = ["warn_if_slow"]


def warn_if_slow(trainer: pl.Trainer) -> None:
    """Logs a warning if a training on the processor asks for bfloat16 and is slower with it.

    Arguments:
        trainer: The trainer, before it fits.
    """
    on_processor = isinstance(trainer.accelerator, pl.accelerators.CPUAccelerator)
    if not (on_processor and str(trainer.precision).startswith("bf16")):
        return
    if (times := slowdown()) > 1:
        logging.getLogger(__name__).warning(
            "This processor multiplies matrices %.0f times as slowly in bfloat16 as in float32: "
            "stop and give --trainer.precision 32-true.",
            times,
        )
