"""From a checkpoint that Lightning wrote to a prior: it denoises as the chosen average does."""

import importlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

from ecgdiff.diffusion.denoiser import Denoiser
from ecgdiff.diffusion.quality import BANDS, denoising_losses
from ecgdiff.errors import DataError
from ecgdiff.lightning import datamodule as data_file
from ecgdiff.lightning import export as export_file
from ecgdiff.lightning.datamodule import PTBXLDataModule
from ecgdiff.lightning.ema import WeightAverages
from ecgdiff.lightning.prior import DiffusionPrior
from ecgdiff.models import sashimi
from ecgdiff.prior import load_prior

pytestmark = [
    # Lightning's own remarks on loaders without workers and short epochs.
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:The number of training batches"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec"),
]
TINY = {"d_model": 8, "n_layers": 1, "pool": (2,), "state": 8, "t_features": 8, "t_width": 8}
SETTINGS = {"scale": 0.2, "lr": 0.1, "warmup": 1, "total_steps": 4}
SIGMAS = (0.5, 2.0, 20.0)
HALF = 2**-10  # what rounding the matrices to half precision may change, in model units


def microvolts() -> Tensor:
    """Forty records of eight correlated leads, 64 samples."""
    phase = 6 * torch.rand(40, 1, 1, generator=torch.Generator().manual_seed(0))
    waves = torch.sin(torch.arange(64) / 10 + phase) * torch.linspace(0.5, 1.5, 8)[:, None]
    return (200 * waves).to(torch.int16)


def as_denoiser(weights: Mapping[str, Tensor]) -> Denoiser:
    """A network with these weights."""
    module = DiffusionPrior(**SETTINGS)  # type: ignore[arg-type]
    module.load_state_dict(weights)
    return module.eval().denoiser()


@torch.no_grad()
def denoised(denoiser: Denoiser, x0: Tensor) -> Tensor:
    """What it makes of noisy records, level by level."""
    found = []
    for k, sigma in enumerate(SIGMAS):
        t = denoiser.schedule.index(sigma)
        alpha, std = float(denoiser.schedule.alpha(t)), float(denoiser.schedule.std(t))
        noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(k))
        found.append(denoiser(alpha * x0 + std * noise, t))
    return torch.stack(found)


def off(a: Tensor, b: Tensor) -> float:
    """The root mean square difference at the level where it is largest."""
    return float((a - b).square().mean(dim=(1, 2, 3)).sqrt().max())


def test_an_exported_checkpoint_denoises_as_its_best_average(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    monkeypatch.setitem(sashimi.PRESETS, "small", TINY)
    asked: list[tuple[int, ...]] = []

    def load(root: str, folds: Iterable[int], leads: object) -> tuple[Tensor, int]:
        asked.append(tuple(folds))
        return microvolts(), 3

    for file in (data_file, export_file):
        monkeypatch.setattr(file, "load_fold_set", load)
    # Far apart, though the run is short; the best is neither the first nor the last.
    averages = WeightAverages([0.02, 0.99, 0.1])
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=2,
        callbacks=[averages],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )
    module = DiffusionPrior(**SETTINGS)  # type: ignore[arg-type]
    folds = [2, 3, 5]
    rows = PTBXLDataModule(root="", batch_size=8, steps_per_epoch=4, train_folds=folds)
    trainer.fit(module, rows)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    torch.manual_seed(99)  # global randomness must not matter
    export_file.export(tmp_path / "last.ckpt", "PTB-XL", "mine", tmp_path / "mine", draws=4)

    prior = load_prior(tmp_path / "mine")
    training = prior.config["training"]
    assert (prior.name, prior.scale, prior.n_samples) == ("mine", 0.2, 64)
    assert (training["steps"], training["clipped_samples"]) == (2, 3)
    assert training["folds"] == folds
    # Trained on them, validated on 9; exported with the covariance of them, chosen on 9.
    assert sorted(asked) == sorted(2 * [tuple(folds), (9,)])
    assert "records of folds 2, 3, 5;" in (tmp_path / "mine" / "README.md").read_text()
    x0 = module.to_units(microvolts())
    kept = {str(d): as_denoiser(weights) for d, weights in averages._averages.items()}
    losses = {d: denoising_losses(denoiser, x0, BANDS) for d, denoiser in kept.items()}
    best = min(losses, key=lambda d: sum(losses[d]))
    assert training["ema_decay"] == best == "0.99"
    assert prior.config["acceptance"]["losses_fold9"] == pytest.approx(losses[best])

    found = denoised(prior.denoiser, x0)
    assert off(found, denoised(kept[best], x0)) < HALF
    # What would be wrong to ship is well apart: the other averages, the last weights.
    for wrong in (kept["0.02"], kept["0.1"], as_denoiser(module.state_dict())):
        assert off(found, denoised(wrong, x0)) > 10 * HALF


@pytest.mark.parametrize("kind", ["export", "export_classifier", "export_unet"])
def test_a_place_that_cannot_be_written_is_refused_before_anything_is_read(
    kind: str, tmp_path: Path
) -> None:
    (tmp_path / "taken").write_text("", encoding="utf-8")
    export = importlib.import_module(f"ecgdiff.lightning.{kind}").export
    with pytest.raises(DataError, match="is a file; give a folder"):
        export(tmp_path / "no.ckpt", "no folder", "mine", tmp_path / "taken")
