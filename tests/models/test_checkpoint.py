"""Checkpoints come back as they were, and damaged ones are refused with the reason."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ecgdiff.demo import load_truth
from ecgdiff.diffusion.covariance import LeadFrequencyCovariance
from ecgdiff.ecg.leads import LEADS_8
from ecgdiff.ecg.preprocess import baseline
from ecgdiff.errors import CheckpointError
from ecgdiff.models.checkpoint import load_checkpoint, save_checkpoint
from ecgdiff.models.sashimi import SaShiMi
from ecgdiff.operators import Mask, Observation
from ecgdiff.prior import load_prior, prior_names

TINY = {
    "channels": 8,
    "d_model": 8,
    "n_layers": 1,
    "pool": [2],
    "state": 8,
    "t_features": 8,
    "t_width": 8,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    net = SaShiMi(**TINY)
    torch.nn.init.normal_(net.output.weight)
    spectrum = torch.eye(8).repeat(16, 1, 1)
    config = {
        "name": "tiny",
        "objective": "edm",
        "network": TINY,
        "leads": list(LEADS_8),
        "sampling_rate_hz": 100.0,
        "n_samples": 16,
        "scale_mv": 0.2,
    }
    save_checkpoint(
        tmp_path, config, {**net.state_dict(), "covariance.spectrum": spectrum}, "# card\n"
    )
    return tmp_path


def change(folder: Path, **entries: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def test_a_prior_comes_back_with_its_numbers(folder: Path) -> None:
    prior = load_prior(folder)
    assert (prior.name, prior.leads, prior.scale, prior.duration) == ("tiny", LEADS_8, 0.2, 0.16)
    assert isinstance(prior.denoiser.covariance, LeadFrequencyCovariance)
    x = torch.randn(2, 8, 16)
    first = prior.denoiser(x, 500)
    assert first.shape == x.shape and (first == load_prior(folder).denoiser(x, 500)).all()
    _, tensors = load_checkpoint(folder)
    assert tensors["output.weight"].dtype == torch.float32


def test_eps_networks_load_too(folder: Path) -> None:
    change(folder, objective="eps")
    assert load_prior(folder).denoiser(torch.randn(1, 8, 16), 3).shape == (1, 8, 16)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"format": 99}, "update ecgdiff"),
        ({"format": None}, "no format version"),
        ({"sha256": "0" * 64}, "damaged or of another checkpoint"),
        ({"objective": "magic"}, "must be 'edm' or 'eps'"),
        ({"network": {**TINY, "d_model": 16}}, "do not make a prior"),
        ({"network": {**TINY, "unheard_of": 1}}, "do not make a prior"),
        ({"leads": None}, "do not make a prior"),
    ],
)
def test_what_does_not_fit_is_refused(
    folder: Path, entries: dict[str, object], message: str
) -> None:
    change(folder, **entries)
    with pytest.raises(CheckpointError, match=message):
        load_prior(folder)


def test_damaged_and_missing_files_are_refused(folder: Path, tmp_path: Path) -> None:
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"\x80\x04pickle"):
        weights.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="damaged"):
            load_prior(folder)
    weights.unlink()
    with pytest.raises(CheckpointError, match="was not found"):
        load_prior(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="not JSON"):
        load_prior(folder)
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match="pickled checkpoints"):
        load_prior(folder)
    with pytest.raises(CheckpointError, match="neither a folder"):
        load_prior(tmp_path / "absent")


def test_a_pickle_under_the_right_checksum_is_still_refused(folder: Path) -> None:
    import hashlib

    torch.save({"a": torch.zeros(1)}, folder / "model.safetensors")
    found = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    change(folder, sha256=found)
    with pytest.raises(CheckpointError, match="no safetensors file"):
        load_prior(folder)


@pytest.mark.parametrize("name", ["default", "inpainting"])
def test_the_embedded_priors_load_and_denoise(name: str) -> None:
    assert name in prior_names()
    prior = load_prior(name)
    assert prior.leads == LEADS_8 and prior.n_samples == 1000 and prior.sampling_rate == 100.0
    x = torch.randn(1, 8, 1000)
    schedule = prior.denoiser.schedule
    clean = 0.1 * torch.sin(torch.arange(1000) / 15).expand(1, 8, 1000)
    t = schedule.index(0.05)
    noisy = float(schedule.alpha(t)) * (clean + 0.05 * x)
    error = (prior.denoiser(noisy, t) - clean).std()
    assert error < 0.05


def test_the_embedded_inpainting_prior_uses_what_it_is_shown() -> None:
    prior, truth = load_prior("inpainting"), load_truth()
    signal = np.stack([truth.lead(lead) for lead in LEADS_8])
    x0 = torch.from_numpy(signal - baseline(signal, 100.0)).float()[None] / prior.scale
    mask = torch.zeros(1, 8, 1000, dtype=torch.bool)
    mask[:, 0] = True
    t = prior.denoiser.schedule.index(10.0)
    alpha, std = float(prior.denoiser.schedule.alpha(t)), float(prior.denoiser.schedule.std(t))
    x_t = alpha * x0 + std * torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    blind = (prior.denoiser(x_t, t) - x0)[~mask].square().mean()
    seen = prior.denoiser.condition(Observation(x0 * mask, Mask(mask), 0.085))
    assert (seen(x_t, t) - x0)[~mask].square().mean() < 0.7 * blind


@pytest.mark.parametrize("name", ["default", "inpainting"])
def test_bfloat16_denoises_alike_and_gives_float32(name: str) -> None:
    exact, rounded = load_prior(name).denoiser, load_prior(name, "bfloat16").denoiser
    t = exact.schedule.index(0.5)
    x_t = float(exact.schedule.alpha(t)) * torch.randn(2, 8, 200)
    a, b = exact(x_t, t), rounded(x_t, t)
    assert b.dtype == torch.float32
    assert not torch.equal(a, b)
    assert (a - b).square().mean() < 1e-3 * a.square().mean()
    with pytest.raises(ValueError, match="float32 or bfloat16"):
        load_prior(name, "float16")  # type: ignore[arg-type]
