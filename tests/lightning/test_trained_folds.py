"""Which folds a run learned from: written into its checkpoints, held to when it goes on."""

from typing import Any

import pytest

from ecgdiff.errors import CheckpointError
from ecgdiff.lightning.datamodule import PTBXLDataModule
from ecgdiff.lightning.training_run import named_folds, trained_folds


def data(*folds: int) -> PTBXLDataModule:
    return PTBXLDataModule(root="", train_folds=folds)


def checkpoint(*folds: int) -> dict[str, Any]:
    return {"hyper_parameters": {"lr": 1.0}, "PTBXLDataModule": data(*folds).state_dict()}


def test_a_checkpoint_says_what_its_run_learned_from() -> None:
    assert trained_folds(checkpoint(3, 1)) == [1, 3]


def test_a_checkpoint_that_does_not_say_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"which folds it learned from.*--data\.train_folds"):
        trained_folds({"hyper_parameters": {"lr": 1.0}, "global_step": 3})


@pytest.mark.parametrize("held_out", [9, 10])
def test_what_learned_from_held_out_folds_is_not_exported(held_out: int) -> None:
    with pytest.raises(CheckpointError, match=rf"learned from fold {held_out}"):
        trained_folds(checkpoint(1, held_out))


def test_a_run_goes_on_with_its_own_folds_only() -> None:
    data(1, 2).load_state_dict(data(1, 2).state_dict())
    with pytest.raises(CheckpointError, match=r"from folds \[1, 2\] so far.*with \[1, 2, 3\]"):
        data(1, 2, 3).load_state_dict(data(1, 2).state_dict())


@pytest.mark.parametrize(
    ("folds", "name"),
    [
        (range(1, 9), "folds 1-8"),
        ([2, 1], "folds 1-2"),
        ([5, 2, 3], "folds 2, 3, 5"),
        ([4], "fold 4"),
    ],
)
def test_folds_have_a_name(folds: list[int], name: str) -> None:
    assert named_folds(folds) == name
