"""Training: what is learned, averaged, resumed and exported; a tiny net on made-up ECGs."""

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch

from ecgdiff.diffusion.inpainting import InpaintingDenoiser
from ecgdiff.diffusion.quality import BANDS
from ecgdiff.diffusion.schedule import Schedule
from ecgdiff.lightning import datamodule as data_file
from ecgdiff.lightning import shown as shown_file
from ecgdiff.lightning.datamodule import PTBXLDataModule
from ecgdiff.lightning.ema import WeightAverages
from ecgdiff.lightning.losses import edm_pair
from ecgdiff.lightning.masks import draw_masks
from ecgdiff.lightning.prior import DiffusionPrior
from ecgdiff.lightning.share import Share
from ecgdiff.lightning.validation import band_losses
from ecgdiff.models import sashimi
from ecgdiff.models.checkpoint import stored
from ecgdiff.prior import load_prior

pytestmark = [
    # Lightning's own remarks on loaders without workers and short epochs.
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:The number of training batches"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec"),
    pytest.mark.filterwarnings("ignore:.*exists and is not empty"),
    pytest.mark.filterwarnings("ignore:The dirpath has changed"),
]
TINY = {"d_model": 8, "n_layers": 1, "pool": (2,), "state": 8, "t_features": 8, "t_width": 8}


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forty records of eight correlated leads, 64 samples, in place of PTB-XL."""
    time = torch.arange(64) / 10
    phase = 6 * torch.rand(40, 1, 1, generator=torch.Generator().manual_seed(0))
    waves = 200 * torch.sin(time + phase) * torch.linspace(0.5, 1.5, 8)[:, None]
    monkeypatch.setattr(data_file, "load_fold_set", lambda *_: (waves.to(torch.int16), 0))
    monkeypatch.setitem(sashimi.PRESETS, "small", TINY)


def model(**settings: object) -> DiffusionPrior:
    torch.manual_seed(1)
    return DiffusionPrior(**{"scale": 0.2, "warmup": 2, "total_steps": 8, **settings})  # type: ignore[arg-type]


def data() -> PTBXLDataModule:
    return PTBXLDataModule(root="", batch_size=8, steps_per_epoch=4)


def trainer(folder: Path, steps: int) -> pl.Trainer:
    saver = pl.callbacks.ModelCheckpoint(folder, every_n_train_steps=1, save_top_k=-1)
    return pl.Trainer(
        accelerator="cpu",
        max_steps=steps,
        callbacks=[WeightAverages([0.9, 0.99]), saver],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        gradient_clip_val=1.0,
    )


def averages(t: pl.Trainer) -> WeightAverages:
    return next(c for c in t.callbacks if isinstance(c, WeightAverages))  # type: ignore[attr-defined]


@pytest.mark.parametrize("stop", [3, 5])
def test_a_resumed_run_is_the_same_run_bit_for_bit(
    made_up: None, tmp_path: Path, stop: int
) -> None:
    straight, whole = model(), trainer(tmp_path / "a", 8)
    whole.fit(straight, data())
    first = trainer(tmp_path / "b", stop)
    first.fit(model(), data())
    saved = next((tmp_path / "b").glob(f"*step={stop}.ckpt"))
    resumed, second = model(), trainer(tmp_path / "c", 8)
    torch.manual_seed(99)  # global randomness must not matter
    second.fit(resumed, data(), ckpt_path=str(saved), weights_only=True)
    for a, b in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
    for decay in (0.9, 0.99):
        left, right = averages(whole)._averages[decay], averages(second)._averages[decay]
        assert all(torch.equal(left[k], right[k]) for k in left)


def test_every_epoch_has_its_steps(made_up: None, tmp_path: Path) -> None:
    t = trainer(tmp_path, 8)
    t.fit(model(), data())
    assert (t.global_step, t.current_epoch) == (8, 2)


def test_averages_follow_their_formula(made_up: None, tmp_path: Path) -> None:
    history: list[torch.Tensor] = []

    class Watch(pl.Callback):
        def on_train_batch_end(self, *args: object) -> None:
            history.append(args[1].net.input.weight.detach().clone())  # type: ignore[attr-defined]

    module, t = model(), trainer(tmp_path, 6)
    t.callbacks.append(Watch())  # type: ignore[attr-defined]
    expected = module.net.input.weight.detach().clone()
    t.fit(module, data())
    for k, weight in enumerate(history, start=1):
        keep = min(0.99, (1 + k) / (10 + k))
        expected = keep * expected + (1 - keep) * weight
    torch.testing.assert_close(averages(t)._averages[0.99]["net.input.weight"], expected)


def test_swapping_puts_everything_back(made_up: None, tmp_path: Path) -> None:
    module, t = model(), trainer(tmp_path, 4)
    t.fit(module, data())
    before = {k: v.clone() for k, v in module.state_dict().items()}
    with averages(t).swapped(module, 0.99):
        assert any((v != before[k]).any() for k, v in module.state_dict().items())
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())


def test_no_spectrum_of_swapped_weights_is_kept(made_up: None, tmp_path: Path) -> None:
    module, t = model(lr=0.1), trainer(tmp_path, 4)
    t.fit(module, data())
    module.eval()
    x = torch.randn(2, 8, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        own = module.denoiser()(x, 400)
        # Without a change of mode, which forgets spectra of its own accord.
        with averages(t).swapped(module, 0.99):
            other = module.denoiser()(x, 400)
        assert torch.equal(module.denoiser()(x, 400), own)
        assert not torch.allclose(other, own, atol=1e-4)
        for k, p in module.named_parameters():
            p.copy_(averages(t)._averages[0.99][k])
        module.eval()
        assert torch.equal(module.denoiser()(x, 400), other)


@pytest.mark.parametrize("objective", ["edm", "eps"])
def test_training_lowers_the_loss(made_up: None, tmp_path: Path, objective: str) -> None:
    module = model(objective=objective, lr=1e-2, total_steps=60)
    d = data()
    d.setup("fit")
    x0 = module.to_units(d.validation_set)
    start = sum(band_losses(module.denoiser(), x0, None, 0)[3:6])
    trainer(tmp_path, 60).fit(module, d)
    module.eval()
    assert sum(band_losses(module.denoiser(), x0, None, 0)[3:6]) < 0.7 * start


def test_training_on_observations_lowers_the_loss(made_up: None, tmp_path: Path) -> None:
    module = model(inpainting=True, lr=1e-2, total_steps=40)
    x0 = module.to_units(data_file.load_fold_set("", [9], ())[0])
    start = band_losses(*module.to_validate(x0, 0), 0)[3:6]
    trainer(tmp_path, 40).fit(module, data())
    module.net.eval()
    assert sum(band_losses(*module.to_validate(x0, 0), 0)[3:6]) < 0.8 * sum(start)


def test_the_loss_of_what_was_lost_by_its_formula(made_up: None) -> None:
    """From new generators, in the order in which a step draws; to the bit."""
    module = model(inpainting=True)
    torch.nn.init.normal_(module.net.output.weight, generator=torch.Generator().manual_seed(0))
    x0, noise = torch.randn(2, 6, 8, 64, generator=torch.Generator().manual_seed(1))
    found = module._inpainting_loss(x0, noise, Share(3, 5, 0, 1))
    found.backward()
    weight = module.net.input.weight
    assert weight.grad is not None
    gradient, weight.grad = weight.grad, None

    share = Share(3, 5, 0, 1)
    sigma = module.draw_sigma(6, share.generator)[:, None, None]
    mask = draw_masks((6, 8, 64), share.host)
    low, high = math.log(0.02), math.log(1.0)
    u = torch.rand((6, 1, 1), generator=share.generator)
    sigma_y = (u * (high - low) + low).exp()
    y = x0 + sigma_y * torch.randn(x0.shape, generator=share.generator)
    x, target = edm_pair(x0, sigma, noise)
    seen = torch.where(mask, y, x / (sigma**2 + 1).sqrt())
    trusted = torch.where(mask, 1 / (1 + 4 * sigma_y), 0.0)
    error = (module.net(seen, sigma.flatten().log() / 4, trusted) - target).square() * ~mask
    expected = error.sum() / int((~mask).sum())
    expected.backward()
    assert torch.equal(found, expected) and torch.equal(gradient, weight.grad)


class Elsewhere(Share):
    """The numbers of a step on a device that holds no numbers and takes none of another."""

    def normal(self, shape: Sequence[int]) -> torch.Tensor:
        return torch.ones(tuple(shape), device="meta")

    uniform = normal


def test_nothing_that_is_shown_stays_on_the_host() -> None:
    weight = torch.ones((), device="meta", requires_grad=True)

    class Net(torch.nn.Module):
        def forward(self, u: torch.Tensor, level: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return weight * (u + t) * level[:, None, None]

    x0 = torch.ones(6, 8, 64, device="meta")
    sigma = torch.ones(6, 1, 1, device="meta")
    loss = shown_file.inpainting_loss(Net(), x0, sigma, x0, Elsewhere(0, 0, 0, 1))
    loss.backward()
    assert weight.grad is not None and weight.grad.device == loss.device == x0.device
    denoiser = InpaintingDenoiser(Net(), Schedule.linear())
    seen, same, lost = shown_file.validation_view(denoiser, x0, 0)
    with pytest.raises(RuntimeError, match="device"):
        x0 * torch.ones(6, 8, 64)  # so a tensor left behind would show
    with torch.no_grad():
        assert {seen(same, 400).device, lost.device} == {x0.device}


def test_the_share_shown_is_that_of_the_setting(
    made_up: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[torch.Tensor] = []

    def watched(*given: object) -> torch.Tensor:
        drawn.append(draw_masks(*given))  # type: ignore[arg-type]
        return drawn[-1]

    monkeypatch.setattr(shown_file, "draw_masks", watched)
    x0, noise = torch.randn(2, 1000, 8, 64)
    for shown in (None, 0.6):
        model(inpainting=True, shown=shown)._inpainting_loss(x0, noise, Share(0, 0, 0, 1))
    usual, fewer = (float(mask.flatten(1).any(1).double().mean()) for mask in drawn)
    assert 0.9 < usual < 0.98 and 0.53 < fewer < 0.65


def test_a_network_that_is_shown_nothing_starts_as_the_prior_it_was() -> None:
    prior = load_prior("default").denoiser
    widened = DiffusionPrior(start="default", inpainting=True)
    widened.net.eval()
    x = torch.randn(2, 8, 1000, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(widened.denoiser()(x, 400), prior(x, 400))


def test_an_untrained_network_has_loss_one_in_every_band(made_up: None) -> None:
    """F = 0 means D = c_skip x, whose weighted loss is 1 on data of unit variance."""
    module = model().eval()
    x0 = torch.randn(64, 8, 64)
    assert all(abs(loss - 1) < 0.05 for loss in band_losses(module.denoiser(), x0, None, 0))


def test_every_record_once_per_epoch_and_ranks_share_them(made_up: None) -> None:
    d = data()
    d.setup("fit")
    seen = torch.cat([d.train_batch(step, rank, 2) for step in range(2) for rank in (0, 1)])
    assert len({tuple(r.flatten().tolist()) for r in seen}) == 32
    assert not torch.equal(d.train_batch(0), d.train_batch(5))
    torch.testing.assert_close(d.train_batch(3), d.train_batch(3))
    with pytest.raises(ValueError, match="cannot fill one batch"):
        PTBXLDataModule(root="", batch_size=64).train_batch(0)


def test_noise_levels_follow_the_stated_mixture() -> None:
    module = model(sigma_log_mean=0.9, sigma_log_std=1.6, uniform_share=0.2)
    ln = module.draw_sigma(200_000, torch.Generator().manual_seed(0)).log()
    low, high = math.log(0.005), math.log(160)
    mean = 0.8 * 0.9 + 0.2 * (low + high) / 2
    second = 0.8 * (1.6**2 + 0.9**2) + 0.2 * (low**2 + low * high + high**2) / 3
    assert abs(float(ln.mean()) - mean) < 0.02
    assert abs(float(ln.square().mean()) - second) < 0.05
    assert float(ln.min()) < -3 and len(BANDS) == 8


def test_learning_rate_warms_up_and_comes_down_to_one_percent() -> None:
    module = model(warmup=10, total_steps=110)
    rates = [module.rate(k) for k in range(111)]
    assert rates[0] == 0.1 and rates[9] == 1.0 and rates[10] == 1.0
    assert rates[60] == pytest.approx(0.505) and rates[110] == pytest.approx(0.01)
    assert all(a >= b for a, b in pairwise(rates[10:]))


def test_state_space_parameters_have_their_own_group(made_up: None) -> None:
    module = model(lr=5e-3)
    groups = module.configure_optimizers()["optimizer"].param_groups
    assert [g["weight_decay"] for g in groups] == [0.01, 0.0, 0.0]
    assert [g["initial_lr"] for g in groups] == [5e-3, 5e-3, 1e-3]
    assert sum(len(g["params"]) for g in groups) == len(list(module.parameters()))
    assert len(groups[2]["params"]) == 3 * sum(
        1 for m in module.modules() if type(m).__name__ == "S4D"
    )


def test_training_can_start_from_a_shipped_prior() -> None:
    module = DiffusionPrior(start="default")
    prior = load_prior("default")
    shipped = prior.denoiser.net.state_dict()  # type: ignore[attr-defined]
    assert all(torch.equal(v, shipped[k]) for k, v in module.net.state_dict().items())
    assert all(p.requires_grad for p in module.parameters())
    assert module.earlier is not None
    assert module.earlier["sha256"] == prior.config["sha256"]
    assert module.earlier["steps"] >= prior.config["training"]["steps"]


def test_weights_in_half_precision_denoise_as_the_exact_ones() -> None:
    exact = load_prior("default").denoiser
    module = DiffusionPrior(start="default")
    shipped = stored(module.net)
    size = sum(value.numel() * value.element_size() for value in shipped.values())
    assert size < 0.6 * 4 * sum(value.numel() for value in shipped.values())
    rates = [v for k, v in shipped.items() if k.endswith((".log_dt", ".a", ".b"))]
    assert rates and all(v.dtype == torch.float32 for v in rates)
    module.net.load_state_dict(shipped)
    module.eval()
    for sigma in (0.05, 1.0, 20.0):
        t = exact.schedule.index(sigma)
        x_t = torch.randn(1, 8, 200, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            off = module.denoiser()(x_t, t) - exact(x_t, t)
        assert float(off.square().mean().sqrt()) < 1e-3 * sigma


def test_a_resumed_run_remembers_what_it_started_from(made_up: None, tmp_path: Path) -> None:
    first = model()
    first.earlier = {"name": "older", "sha256": "0" * 64, "steps": 7}
    trainer(tmp_path / "a", 3).fit(first, data())
    resumed, saved = model(), next((tmp_path / "a").glob("*step=3.ckpt"))
    trainer(tmp_path / "b", 4).fit(resumed, data(), ckpt_path=str(saved), weights_only=True)
    assert resumed.earlier == first.earlier


def test_windows_take_turns_and_gains_are_common_to_the_leads(made_up: None) -> None:
    m = model(lengths=[64, 16], gain=(0.5, 2.0))
    ramp = torch.arange(64.0).expand(8, 8, 64) * torch.arange(1.0, 9.0)[:, None] + 100
    for step, length in ((0, 64), (1, 16), (2, 64)):
        share = Share(0, step, 0, 1)
        varied = m._varied(ramp, share)
        assert varied.shape == (8, 8, length)
        # What is left of a ramp, lead by lead, is a stretch of it times one factor per record.
        slope = varied.diff(dim=-1)
        gains = slope / torch.arange(1.0, 9.0)[:, None]
        torch.testing.assert_close(gains, gains[:, :1, :1].expand_as(gains), rtol=1e-3, atol=1e-4)
        assert (gains > 0.5).all() and (gains < 2.0).all() and gains[:, 0, 0].unique().numel() == 8
        starts = (varied[:, 0, 0] / gains[:, 0, 0] - 100).round()
        assert (starts >= 0).all() and (starts <= 64 - length).all()
        assert (starts.unique().numel() > 1) == (length < 64)


def test_every_length_is_validated(made_up: None, tmp_path: Path) -> None:
    t = trainer(tmp_path, 4)
    t.fit(model(lengths=[16, 64]), data())
    names = {k for k in t.callback_metrics if k.startswith("val_") and "/" not in k}
    assert names == {"val_0.9", "val_0.99", "val_0.9_16", "val_0.99_16"}


def test_processes_draw_the_numbers_of_one() -> None:
    whole = Share(3, 7, 0, 1)
    parts = [Share(3, 7, rank, 2) for rank in (0, 1)]
    for draw, shape in (("normal", (4, 2, 3)), ("uniform", (4, 1, 1))):
        both = torch.cat([getattr(p, draw)((2, *shape[1:])) for p in parts])
        assert torch.equal(getattr(whole, draw)(shape), both)
    assert torch.equal(whole.integers(9, 4), torch.cat([p.integers(9, 2) for p in parts]))


def test_gradients_are_clipped_by_their_norm(made_up: None) -> None:
    m = model()
    for p in m.parameters():
        p.grad = torch.ones_like(p)
    m.configure_gradient_clipping(m.configure_optimizers()["optimizer"], 0.5, "norm")
    total = torch.cat([p.grad.flatten() for p in m.parameters() if p.grad is not None]).norm()
    torch.testing.assert_close(total, torch.tensor(0.5))
    with pytest.raises(ValueError, match="by norm"):
        m.configure_gradient_clipping(m.configure_optimizers()["optimizer"], 0.5, "value")


def test_settings_that_would_train_wrongly_are_refused(made_up: None, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"give trainer\.max_steps"):
        model(total_steps=-1)
    for settings, words in (
        ({"patterns": ["half"]}, "give inpainting"),
        ({"patterns": ["quarter"], "inpainting": True}, "There is no pattern 'quarter'"),
        ({"shown": 0.6}, "give inpainting"),
        ({"shown": 1.6, "inpainting": True}, "up to 1, got 1.6"),
        ({"gain": (1.25, 0.8)}, "range of positive factors, got 1.25 to 0.8"),
        ({"start": "default", "scale": 1.0}, "has objective edm and scale 0.236"),
    ):
        with pytest.raises(ValueError, match=words):
            model(**settings)
    with pytest.raises(ValueError, match="lengths has 128; the records have 64"):
        trainer(tmp_path, 4).fit(model(lengths=[128]), data())
    scaled = trainer(tmp_path, 4)
    scaled.strategy.precision_plugin.precision = "16-mixed"  # there is no such CPU
    with pytest.raises(ValueError, match="bf16-mixed or 32-true"):
        scaled.fit(model(), data())
    with pytest.raises(ValueError, match="multiples of 2, got 15"):
        model(lengths=[64, 15])
    t = trainer(tmp_path, 4)
    t.accumulate_grad_batches = 2
    with pytest.raises(ValueError, match=r"raise data\.batch_size"):
        t.fit(model(), data())
