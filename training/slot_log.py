"""The log of training/slot.py: one CSV file, which training/curve.py draws."""

import csv
from collections.abc import Sequence
from pathlib import Path

from slot_run import VALIDATION_FOLD, Losses

from ecgdiff.diffusion.quality import BANDS

__all__ = ["Log"]


class Log:
    """Creates the log: `log.csv`, with the columns that training/curve.py reads.

    Arguments:
        path: The file; rows of steps after `step`, which will be made again, are dropped.
        decays: The averages.
        step: Steps made so far; 0 starts a new file.
        views: What validation shows the network, as in the names of columns.
    """

    def __init__(
        self, path: Path, decays: Sequence[float], step: int, views: Sequence[str]
    ) -> None:
        names = [f"val_{decay}{view}" for decay in decays for view in views]
        values = [name + band for name in names for band in ("", *(f"/{s:.3g}" for s in BANDS))]
        self.path = path
        self.columns = ["step", "elapsed_s", "loss", "lr", "samples_per_s", *values]
        path.parent.mkdir(parents=True, exist_ok=True)
        self.rewind(step)

    def rewind(self, step: int) -> None:
        """Drops the rows of steps after `step`, which will be made again."""
        kept: list[dict[str, str]] = []
        if step and self.path.is_file():
            with self.path.open(newline="", encoding="utf-8") as file:
                kept = [row for row in csv.DictReader(file) if int(row["step"]) <= step]
        with self.path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(kept)

    def write(self, **values: object) -> None:
        """Writes one row at once."""
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self.columns).writerow(values)

    def write_losses(self, step: int, elapsed: float, losses: dict[float, Losses]) -> None:
        """Writes the losses of a validation and prints their means."""
        found = {
            f"{decay}{view}": values
            for decay, views in losses.items()
            for view, values in views.items()
        }
        row: dict[str, object] = {}
        for name, values in found.items():
            row[f"val_{name}"] = sum(values) / len(values)
            row |= {f"val_{name}/{s:.3g}": v for s, v in zip(BANDS, values, strict=True)}
        self.write(step=step, elapsed_s=round(elapsed, 1), **row)
        means = ", ".join(f"{sum(v) / len(v):.4f} ({name})" for name, v in found.items())
        print(f"step {step}, {elapsed:.0f} s, fold {VALIDATION_FOLD}: {means}", flush=True)
