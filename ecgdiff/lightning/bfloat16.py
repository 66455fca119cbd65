"""Whether this processor gains by bfloat16, for which the recipes ask: measured."""

import logging
import time

import pytorch_lightning as pl
import torch

__all__ = ["slowdown", "warn_if_slow"]

SIZE, REPEATS = 256, 5


def slowdown() -> float:
    """How many times as long a matrix product of the processor takes in bfloat16 as in float32."""
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        a = torch.ones(SIZE, SIZE, dtype=dtype)
        times = []
        for _ in range(REPEATS):
            start = time.perf_counter()
            a @ a
            times.append(time.perf_counter() - start)
        # The fastest: the others waited for caches or for other programs.
        seconds[dtype] = min(times)
    return seconds[torch.bfloat16] / seconds[torch.float32]


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
