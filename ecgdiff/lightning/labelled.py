"""PTB-XL with its statements, for training classifiers."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from ecgdiff.data.training_set import load_labelled_set
from ecgdiff.ecg.leads import LEADS_12
from ecgdiff.lightning.datamodule import PTBXLDataModule

__all__ = ["LabelledPTBXL"]


class LabelledPTBXL(PTBXLDataModule):
    """Creates the data of the classifier: ECGs with their statements, all in memory.

    Arguments:
        root: Folder of PTB-XL 1.0.3 with the 100 Hz records.
        leads: Names and order of the leads.
        batch_size: Records per step and process.
        train_folds: Official folds to train on.
        validation_folds: Official folds to validate on.
        steps_per_epoch: Length of what Lightning calls an epoch.
        seed: Seed of the order of the records.
    """

    def __init__(
        self,
        root: str,
        leads: Sequence[str] = LEADS_12,
        batch_size: int = 128,
        train_folds: Sequence[int] = (1, 2, 3, 4, 5, 6, 7, 8),
        validation_folds: Sequence[int] = (9,),
        steps_per_epoch: int = 136,
        seed: int = 0,
    ) -> None:
        super().__init__(
            root,
            leads,
            batch_size,
            train_folds,
            validation_folds,
            validation_records=None,
            steps_per_epoch=steps_per_epoch,
            seed=seed,
        )
        self.train_labels = self.validation_labels = torch.empty(0, dtype=torch.uint8)

    def setup(self, stage: str) -> None:
        """Loads the folds once."""
        if len(self.validation_set):
            return
        if stage == "fit":
            self.train_set, self.train_labels, self.clipped = load_labelled_set(
                self.root, self.train_folds, self.leads
            )
        self.validation_set, self.validation_labels, _ = load_labelled_set(
            self.root, self.validation_folds, self.leads
        )

    def labelled_batch(self, step: int, rank: int = 0, ranks: int = 1) -> tuple[Tensor, Tensor]:
        """Picks a step's records for one process, microvolts, and their statements."""
        rows = self.train_rows(step, rank, ranks)
        return self.train_set[rows], self.train_labels[rows]

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:  # type: ignore[override]
        """Batches of the validation records and statements, always in the same order."""
        return DataLoader(TensorDataset(self.validation_set, self.validation_labels), 64)
