"""Training the U-Net controls: losses, patterns, resuming, exporting; a tiny net, made-up ECGs."""

import math
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import yaml
from torch import Tensor

from ecgdiff.cli.train import unet
from ecgdiff.evaluation.tasks import BlockTask, Case, LeadTask, problem
from ecgdiff.evaluation.unet import load_unet
from ecgdiff.lightning import datamodule as data_file
from ecgdiff.lightning import export_unet
from ecgdiff.lightning.datamodule import PTBXLDataModule
from ecgdiff.lightning.export_unet import export
from ecgdiff.lightning.regression import (
    PATTERNS,
    UNetRegression,
    draw_patterns,
    errors,
    pattern,
)

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    # Lightning's own remarks on loaders without workers and short epochs.
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:The number of training batches"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec"),
    pytest.mark.filterwarnings("ignore:.*exists and is not empty"),
    pytest.mark.filterwarnings("ignore:The dirpath has changed"),
]
LEVELS = (0.1, 0.5, 0.9)
RECIPES = Path(__file__).resolve().parents[2] / "training"


def waves() -> Tensor:
    """Forty records of eight correlated leads, 300 samples, int16 microvolts."""
    time = torch.arange(300) / 10
    phase = 6 * torch.rand(40, 1, 1, generator=torch.Generator().manual_seed(0))
    return (200 * torch.sin(time + phase) * torch.linspace(0.5, 1.5, 8)[:, None]).to(torch.int16)


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Made-up records in place of PTB-XL, and the folds that were asked of it."""
    asked: list[tuple[int, ...]] = []

    def load(root: str, folds: Iterable[int], leads: object) -> tuple[Tensor, int]:
        asked.append(tuple(folds))
        return waves(), 0

    monkeypatch.setattr(data_file, "load_fold_set", load)
    monkeypatch.setattr(export_unet, "load_fold_set", load)
    return asked


def model(**settings: object) -> UNetRegression:
    torch.manual_seed(1)
    small = {"widths": (8, 8, 8, 8), "scale": 0.2, "crop": 256, "warmup": 2, "total_steps": 8}
    return UNetRegression(**{**small, **settings})  # type: ignore[arg-type]


def data() -> PTBXLDataModule:
    return PTBXLDataModule(root="", batch_size=8, steps_per_epoch=4)


def trainer(folder: Path, steps: int, saved_every: int = 1) -> pl.Trainer:
    saver = pl.callbacks.ModelCheckpoint(folder, every_n_train_steps=saved_every, save_top_k=-1)
    return pl.Trainer(
        accelerator="cpu",
        max_steps=steps,
        callbacks=[saver],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        check_val_every_n_epoch=15,
        use_distributed_sampler=False,
        gradient_clip_val=1.0,
    )


def everywhere(*shape: int) -> Tensor:
    return torch.ones(shape, dtype=torch.bool)


@pytest.mark.parametrize("tau", [0.05, 0.5, 0.975])
def test_the_pinball_loss_is_smallest_at_the_true_quantile(tau: float) -> None:
    """Exponential truth, whose quantiles are -ln(1 - tau); every constant of a grid is tried."""
    x0 = -torch.log1p(-(torch.arange(8 * 500) + 0.5) / 4000).reshape(1, 8, 500)
    tried = torch.linspace(0, 6, 601)
    module = model(levels=[tau])
    losses = [
        float(module.error(c.expand(1, 1, 8, 500), x0, everywhere(1, 8, 500))) for c in tried
    ]
    best = float(tried[int(np.argmin(losses))])
    assert best == pytest.approx(-math.log(1 - tau), abs=0.02)
    assert losses[0] > min(losses) and losses[-1] > min(losses)


def test_the_pinball_loss_of_many_levels_is_the_crps() -> None:
    """Of a calibrated standard normal the expected CRPS is 1 / sqrt(pi)."""
    normal = torch.distributions.Normal(0.0, 1.0)
    levels = (torch.arange(199) + 0.5) / 199
    x0 = normal.icdf((torch.arange(8000) + 0.5) / 8000).reshape(1, 8, 1000)
    out = normal.icdf(levels)[None, :, None, None].expand(1, 199, 8, 1000)
    error = model(levels=levels.tolist()).error(out, x0, everywhere(1, 8, 1000))
    assert float(error) == pytest.approx(1 / math.sqrt(math.pi), rel=0.01)


def test_the_regression_loss_by_hand() -> None:
    """Two records: the first has lost samples 1-3 of one lead, the second sample 0."""
    x0, out = torch.zeros(2, 8, 5), torch.full((2, 1, 8, 5), 7.0)
    out[0, 0, 3] = torch.tensor([9.0, 1.0, 2.0, -1.0, 9.0])
    out[1, 0, 2, 0] = -4.0
    lost = torch.zeros(2, 8, 5, dtype=torch.bool)
    lost[0, 3, 1:4] = lost[1, 2, 0] = True
    module = model()
    assert float(module.error(out, x0, lost)) == pytest.approx(((1 + 2 + 1) / 3 + 4) / 2)
    # The differences inside the lost stretch are 1 and -3; the second record has none.
    expected = ((1 + 2 + 1) / 3 + 4) / 2 + ((1 + 3) / 2) / 2
    assert float(module.loss(out, x0, lost)) == pytest.approx(expected)


def test_what_is_shown_carries_the_stated_noise() -> None:
    seen: list[Tensor] = []

    class Spy(torch.nn.Module):
        def forward(self, y: Tensor, mask: Tensor) -> Tensor:
            seen.append(y)
            return y[:, None]

    module = model(noise=0.02)
    module.net = Spy()  # type: ignore[assignment]
    x0 = torch.randn(4, 8, 256)
    module._answer(x0, everywhere(4, 8, 256), torch.Generator().manual_seed(0))
    assert float((seen[0] - x0).std()) * 0.2 == pytest.approx(0.02, rel=0.05)


def test_patterns_are_those_of_the_benchmark() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = np.zeros((8, 1000), dtype=np.float32)
    mask, lost = pattern("leads", 8, 1000, generator)
    theirs = LeadTask().masks(Case(1, 1, truth), 0)
    assert np.array_equal(mask, theirs[0]) and np.array_equal(lost, theirs[1])
    mask, lost = pattern("precordial", 8, 1000, generator)
    assert lost.any(1).tolist() == [False, False, True, True, True, False, False, False]
    assert torch.equal(mask, ~lost)
    starts, sides = set(), set()
    for ecg_id in range(30):
        ours = [p.numpy() for p in pattern("block", 8, 1000, generator)]
        theirs = BlockTask().masks(Case(ecg_id, 1, truth), 0)
        for m, x in (ours, theirs):  # the same rule at other places
            assert (m == m[0]).all() and (x == x[0]).all() and not (m & x).any()
            at = np.flatnonzero((m | x)[0])
            assert len(at) == np.ptp(at) + 1 == 256 and m[0].sum() == x[0].sum() == 128
            assert m[0, at[:128]].all() or x[0, at[:128]].all()
        starts.add(int(np.flatnonzero((ours[0] | ours[1])[0])[0]))
        sides.add(bool(np.argmax(ours[0][0]) < np.argmax(ours[1][0])))
    assert len(starts) > 20 and sides == {True, False}


def test_patterns_are_drawn_with_their_shares() -> None:
    mask, lost = draw_patterns((3000, 8, 256), torch.Generator().manual_seed(0))
    assert mask.shape == lost.shape == (3000, 8, 256) and not bool((mask & lost).any())
    counts = lost.any(2).sum(1)
    for name, leads in (("leads", 7), ("block", 8), ("precordial", 3)):
        assert abs(float((counts == leads).double().mean()) - PATTERNS[name]) < 0.03
    assert sum(PATTERNS.values()) == pytest.approx(1)


@pytest.mark.parametrize("stop", [3, 5])
def test_a_resumed_run_is_the_same_run_bit_for_bit(
    made_up: None, tmp_path: Path, stop: int
) -> None:
    straight = model()
    trainer(tmp_path / "a", 8).fit(straight, data())
    trainer(tmp_path / "b", stop).fit(model(), data())
    saved = next((tmp_path / "b").glob(f"*step={stop}.ckpt"))
    resumed = model()
    torch.manual_seed(99)  # global randomness must not matter
    trainer(tmp_path / "c", 8).fit(resumed, data(), ckpt_path=str(saved), weights_only=True)
    theirs = resumed.state_dict()
    assert all(torch.equal(v, theirs[k]) for k, v in straight.state_dict().items())
    assert not torch.equal(straight.net.head.weight, model().net.head.weight)


@pytest.mark.parametrize("levels", [(), LEVELS], ids=["regression", "quantiles"])
def test_training_lowers_the_error(
    made_up: None, tmp_path: Path, levels: tuple[float, ...]
) -> None:
    module = model(levels=levels, lr=1e-2, total_steps=60)
    module.eval()
    before = errors(module, waves(), 0)
    module.train()
    t = trainer(tmp_path, 60, saved_every=60)
    t.fit(module, data())
    module.eval()
    after = errors(module, waves(), 0)
    assert list(after) == list(PATTERNS)
    # How a wave goes on is harder to learn than what another lead shows of it.
    share = {"leads": 0.5, "block": 0.8, "precordial": 0.5}
    assert all(after[name] < share[name] * before[name] for name in PATTERNS)
    logged = {name: float(t.callback_metrics[f"val_{name}"]) for name in PATTERNS}
    assert logged == pytest.approx(after)  # validation came after the last step


@pytest.mark.parametrize("levels", [(), LEVELS], ids=["regression", "quantiles"])
def test_an_exported_network_answers_as_the_trained_one(
    made_up: list[tuple[int, ...]], tmp_path: Path, levels: tuple[float, ...]
) -> None:
    module = model(levels=levels)
    trainer(tmp_path, 4).fit(module, data())
    assert made_up == [tuple(range(1, 9)), (9,)]
    made_up.clear()
    module.eval()
    config = export(next(tmp_path.glob("*step=4.ckpt")), "", "mine", tmp_path / "out")
    exact = errors(module, waves(), 0)
    assert config["errors_mv_fold9"] == pytest.approx(exact, rel=1e-2)
    assert config["training"]["steps"] == 4
    assert config["training"]["folds"] == list(range(1, 9))
    assert made_up == [(9,)]  # chosen and judged on fold 9, never on the test fold
    card = (tmp_path / "out" / "README.md").read_text()
    assert all(f"{config['errors_mv_fold9'][name]:.4f}" in card for name in PATTERNS)
    loaded = load_unet(tmp_path / "out")
    assert loaded.levels == levels and loaded.scale == 0.2
    truth = waves()[0].numpy() / np.float32(1000)
    p = problem(LeadTask(), Case(1, 1, truth), 0, 0.02)
    y, mask = torch.from_numpy(p.y)[None], torch.from_numpy(p.mask)[None]
    with torch.no_grad():
        expected = 0.2 * module.net(y / 0.2, mask)[0].numpy()
    np.testing.assert_allclose(loaded.curves(p), expected, atol=2e-3 * np.ptp(expected))


def test_learning_rate_warms_up_and_comes_down_to_one_percent() -> None:
    module = model(warmup=10, total_steps=110)
    rates = [module.rate(k) for k in (0, 9, 10, 60, 110)]
    assert rates == pytest.approx([0.1, 1.0, 1.0, 0.505, 0.01])


def test_settings_that_would_train_wrongly_are_refused() -> None:
    with pytest.raises(ValueError, match=r"give trainer\.max_steps"):
        model(total_steps=-1)
    with pytest.raises(ValueError, match="must hold a window"):
        model(crop=200)
    for levels in ([0.5, 0.2], [0.0, 0.5], [0.5, 0.5], [0.5, 1.0]):
        with pytest.raises(ValueError, match="ascend strictly"):
            model(levels=levels)


@pytest.mark.parametrize(
    ("recipe", "steps", "levels"), [("unet", 8000, 0), ("unet_quantile", 6000, 17)]
)
def test_recipes_are_read_by_the_command(
    recipe: str,
    steps: int,
    levels: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["ecgdiff-train-unet"])
    given = ["fit", "-c", str(RECIPES / f"{recipe}.yaml"), "--data.root", "X", "--print_config"]
    with pytest.raises(SystemExit) as stopped:
        unet(given)
    config = yaml.safe_load(capsys.readouterr().out)
    assert stopped.value.code == 0
    assert config["trainer"]["max_steps"] == steps
    assert len(config["model"]["levels"]) == levels
    assert config["model"]["widths"] == [32, 64, 128, 256]
