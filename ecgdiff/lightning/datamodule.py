"""PTB-XL for training: the whole set in memory, batches addressed by step number."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ecgdiff.data.training_set import load_fold_set
from ecgdiff.ecg.leads import LEADS_8
from ecgdiff.errors import CheckpointError

__all__ = ["PTBXLDataModule", "StepCounter"]


class PTBXLDataModule(pl.LightningDataModule):
    """Creates the data of the prior: preprocessed ECGs in memory, no workers.

    The loader only counts steps. A step's records follow from (seed, step, rank), so a resumed run
    repeats nothing and needs no saved random state, and the ranks of one step share one
    permutation.

    Arguments:
        root: Folder of PTB-XL 1.0.3 with the 100 Hz records.
        leads: Names and order of the leads.
        batch_size: Records per step and process.
        train_folds: Official folds to train on.
        validation_folds: Official folds to validate on.
        validation_records: How many of them, evenly spaced; all if None.
        steps_per_epoch: Length of what Lightning calls an epoch.
        seed: Seed of the order of the records.
    """

    def __init__(
        self,
        root: str,
        leads: Sequence[str] = LEADS_8,
        batch_size: int = 64,
        train_folds: Sequence[int] = (1, 2, 3, 4, 5, 6, 7, 8),
        validation_folds: Sequence[int] = (9,),
        validation_records: int | None = 256,
        steps_per_epoch: int = 1000,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.root, self.leads, self.batch_size = root, tuple(leads), batch_size
        self.train_folds, self.validation_folds = tuple(train_folds), tuple(validation_folds)
        self.validation_records, self.steps_per_epoch = validation_records, steps_per_epoch
        self.seed = seed
        self.train_set = self.validation_set = torch.empty(0, dtype=torch.int16)
        self.clipped = 0
        self._order: tuple[int, Tensor] = (-1, torch.empty(0, dtype=torch.int64))

    def setup(self, stage: str) -> None:
        """Loads the folds once."""
        if len(self.train_set):
            return
        if stage == "fit":
            self.train_set, self.clipped = load_fold_set(self.root, self.train_folds, self.leads)
        whole, _ = load_fold_set(self.root, self.validation_folds, self.leads)
        count = len(whole) if self.validation_records is None else self.validation_records
        picked = torch.linspace(0, len(whole) - 1, min(count, len(whole))).long()
        self.validation_set = whole[picked]

    def state_dict(self) -> dict[str, Any]:
        """Returns which folds the run learns from, for its checkpoints and what comes of them."""
        return {"train_folds": list(self.train_folds)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Compares with what a checkpoint's run learned from.

        Raises:
            CheckpointError: If those were other folds; the order of the records depends on them.
        """
        if (before := tuple(state["train_folds"])) != self.train_folds:
            raise CheckpointError(
                f"The run learned from folds {list(before)} so far and cannot go on with "
                f"{list(self.train_folds)}. Set data.train_folds to what it was, or start a new "
                "run from its exported weights."
            )

    def move(self, device: torch.device | str) -> None:
        """Keeps the training records on a device, where batches are picked then."""
        self.train_set = self.train_set.to(device)
        self._order = (-1, self._order[1])

    def train_batch(self, step: int, rank: int = 0, ranks: int = 1) -> Tensor:
        """Picks a step's records for one process: microvolts, (batch_size, leads, 1000)."""
        return self.train_set[self.train_rows(step, rank, ranks)]

    def train_rows(self, step: int, rank: int = 0, ranks: int = 1) -> Tensor:
        """Picks a step's records for one process, by their places in the training set."""
        per_epoch = len(self.train_set) // (self.batch_size * ranks)
        if per_epoch == 0:
            raise ValueError(
                f"{len(self.train_set)} records cannot fill one batch of {self.batch_size} on "
                f"{ranks} processes; lower batch_size."
            )
        epoch, position = divmod(step, per_epoch)
        at = (position * ranks + rank) * self.batch_size
        return self._permutation(epoch)[at : at + self.batch_size]

    def _permutation(self, epoch: int) -> Tensor:
        if self._order[0] != epoch:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            order = torch.randperm(len(self.train_set), generator=generator)
            self._order = epoch, order.to(self.train_set.device)
        return self._order[1]

    def train_dataloader(self) -> "StepCounter":
        """Counts the steps of an epoch; the module asks for the records by step."""
        return StepCounter(self.steps_per_epoch)

    def val_dataloader(self) -> DataLoader[Tensor]:
        """Batches of the validation records, always in the same order."""
        return DataLoader(self.validation_set, batch_size=64)  # type: ignore[arg-type]


class StepCounter:
    """Creates a loader that only counts, and goes on counting where a checkpoint left off.

    Arguments:
        count: Steps per epoch.
    """

    def __init__(self, count: int) -> None:
        self.count, self.position = count, 0

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        # The trainer leaves an epoch at its last step, without asking for one more.
        self.position %= self.count
        while self.position < self.count:
            self.position += 1
            yield self.position - 1
        self.position = 0

    def state_dict(self) -> dict[str, int]:
        """Returns the position for the checkpoint."""
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Takes the position from a checkpoint."""
        self.position = state["position"]
