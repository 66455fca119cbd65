"""What the slot leaves out of Lightning is the same as there, and its weights export as others."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ecgdiff.diffusion.quality import BANDS
from ecgdiff.lightning import export as export_file
from ecgdiff.lightning.losses import edm_loss
from ecgdiff.lightning.prior import DiffusionPrior
from ecgdiff.lightning.share import Share
from ecgdiff.lightning.validation import band_losses
from ecgdiff.models import sashimi
from ecgdiff.prior import load_prior

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "training"))  # the programs are files beside one another, no package
pack, join, slot, slot_run = map(importlib.import_module, ("pack", "join", "slot", "slot_run"))

TINY = {"d_model": 8, "n_layers": 1, "pool": (2,), "state": 8, "t_features": 8, "t_width": 8}


def steps(records: int, seed: int) -> np.ndarray:
    """Correlated leads in steps of 4 uV."""
    generator = np.random.default_rng(seed)
    phase, size = generator.uniform(0, 6, (records, 1, 1)), np.linspace(0.5, 1.5, 8)[:, None]
    return (80 * np.sin(np.arange(64) / 5 + phase) * size).astype(np.int16)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> object:
    """A run with a tiny network and 70 records of fold 9, after three steps."""
    monkeypatch.setitem(sashimi.PRESETS, "small", TINY)
    blocks = [(f, n, pack.pack_block(steps(n, f))) for f, n in enumerate([3] * 8 + [70], 1)]
    header = {"leads": list(export_file.LEADS_8), "length": 64, "step_uv": 4, "clipped": {}}
    pack.write_parts(blocks, tmp_path / "data", header, 10**6)
    places = ["--data", str(tmp_path / "data"), "--out", str(tmp_path / "out")]
    fixed = "--preset small --minutes 1 --batch 8 --lengths 64,32 --device cpu --compile off"
    a = slot._parser().parse_args([*places, *fixed.split(), "--decays", "0.9,0.99"])
    made = slot_run.Run(slot._settings(a), a)
    for _ in range(3):
        made.train_step(1.0)
    return made


def module(run: object) -> DiffusionPrior:
    made = DiffusionPrior(**{**run.h, "total_steps": 10})  # type: ignore[attr-defined]
    made.net.load_state_dict(run.net.state_dict())  # type: ignore[attr-defined]
    return made


@pytest.mark.parametrize("step", [2, 3])
def test_a_step_is_that_of_lightning(run: object, step: int) -> None:
    run.step = step  # type: ignore[attr-defined]
    other = module(run)
    microvolts = 4 * run.records[run.rows()]  # type: ignore[attr-defined]
    share = Share(run.h["seed"], step, 0, 1)  # type: ignore[attr-defined]
    x0 = other._varied(other.to_units(microvolts), share)
    noise = share.normal(x0.shape)
    with torch.autocast("cpu", torch.bfloat16):
        expected = edm_loss(other.net, x0, other._levels(x0, share), noise)
    found = run.loss([64, 32][step % 2])  # type: ignore[attr-defined]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


def test_validation_is_that_of_lightning(run: object) -> None:
    other = module(run).eval()
    x0 = run.validation  # type: ignore[attr-defined]
    assert x0.shape == (70, 8, 64)
    torch.testing.assert_close(x0, other.to_units(4 * torch.from_numpy(steps(70, 9))))
    parts = [band_losses(other.denoiser(), x, None, k) for k, x in enumerate(x0.split(64))]
    expected = np.average(parts, axis=0, weights=[64, 6])
    (found,) = slot_run.band_losses([other.net], x0, torch.device("cpu"))
    assert found == pytest.approx(expected.tolist(), rel=1e-5)


def test_weights_are_stored_as_by_the_export(run: object) -> None:
    """Matrices in half precision; state-space parameters and the rest exactly as they are."""
    net = run.net  # type: ignore[attr-defined]
    found, expected = slot.stored(net), export_file.stored(net)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[k], expected[k]) for k in found)
    assert {t.dtype for t in found.values()} == {torch.float16, torch.float32}
    for name, p in net.named_parameters():
        exact = name.rsplit(".", 1)[-1] in ("a", "b", "log_dt") or p.ndim != 2
        assert torch.equal(found[name], p if exact else p.half())


def test_shards_go_through_the_export(
    run: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slot.publish(run, 60.0, check=True)

    def folds(root: str, wanted: object, leads: object) -> tuple[torch.Tensor, int]:
        return torch.from_numpy(4 * steps(40, 9 if list(wanted) == [9] else 1)), 5  # type: ignore[call-overload]

    monkeypatch.setattr(export_file, "load_fold_set", folds)
    shards, out = tmp_path / "out" / "weights", tmp_path / "prior"
    join.join(shards, out, "mine", root="PTB-XL", draws=4)
    prior = load_prior(out)
    assert prior.denoiser.covariance is not None
    assert len(prior.config["acceptance"]["losses_fold9"]) == len(BANDS)
    config, tensors = join.read_shards(shards)
    training, before = prior.config["training"], config["training"]
    assert training["slot"] == before["slot"] and training["slot"]["seconds"] == 60
    assert (training["steps"], training["ema_decay"]) == (3, before["ema_decay"])
    weights = prior.denoiser.net.state_dict()  # type: ignore[attr-defined]
    assert all(torch.equal(weights[k], t.float()) for k, t in tensors.items())
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "3 of 3 steps" in card and "Training by the clock" in card
    config["training"]["folds"] = [1]
    join.write_shards(shards, config, tensors)
    join.join(shards, tmp_path / "part", "mine", root="PTB-XL", draws=4)
    assert load_prior(tmp_path / "part").config["training"]["folds"] == [1]
    assert "records of fold 1;" in (tmp_path / "part" / "README.md").read_text(encoding="utf-8")
