"""The main job on a prior whose posterior is known: windows, seams, seeds, losses."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import ecgdiff
from ecgdiff import windowed
from ecgdiff.demo import load_truth
from ecgdiff.diffusion.covariance import LeadFrequencyCovariance
from ecgdiff.diffusion.gaussian import GaussianPrior
from ecgdiff.diffusion.inpainting import InpaintingDenoiser
from ecgdiff.diffusion.schedule import Schedule
from ecgdiff.ecg.leads import LEADS_8, LEADS_12, derive_12
from ecgdiff.ecg.recording import Recording
from ecgdiff.errors import OperatorError, SignalQualityError
from ecgdiff.lost import lose
from ecgdiff.pipeline import reconstruct
from ecgdiff.prepare import prepare
from ecgdiff.prior import Prior
from ecgdiff.samplers.conditional import Conditional
from ecgdiff.samplers.surrogate import Surrogate

RATE, WINDOW = 100.0, 400
FAST = Surrogate(steps=8)
ANY = ("reversed-lead-I", "heart-rate", "amplitude", "flat", "clipped")


@pytest.fixture(scope="module")
def gaussian() -> Prior:
    """A stationary process of eight correlated leads around 8 Hz: the surrogate sampler is exact
    for it."""
    f = torch.arange(WINDOW) * RATE / (2 * WINDOW)
    density = torch.exp(-(((f - 8) / 3) ** 2)).double() + 1e-4
    mixing = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(3)))[0]
    leads = (mixing * torch.linspace(0.3, 2, 8)) @ mixing.T
    spectrum = density[:, None, None] * leads.double()
    spectrum *= WINDOW / density.sum()
    covariance = LeadFrequencyCovariance((spectrum + spectrum.mT) / 2)
    denoiser = GaussianPrior.from_covariance(covariance, Schedule.linear())
    return Prior(denoiser, LEADS_8, RATE, WINDOW, scale=0.2, name="gaussian")


def ecg(prior: Prior, seconds: float, seed: int = 0) -> Recording:
    """Twelve leads drawn from the same process, with sharp beats that the quality gate can
    count."""
    n = round(seconds * RATE)
    rng = np.random.default_rng(seed)
    time = np.arange(n) / RATE
    beats = np.exp(-((((time - 0.4) % 0.8) - 0.4) ** 2) / (2 * 0.02**2))
    wave = np.stack([rng.uniform(0.5, 1.5) * np.roll(beats, k) for k in range(8)])
    return Recording(derive_12(wave + 0.02 * rng.standard_normal((8, n))), RATE, LEADS_12)


def run(prior: Prior, recording: Recording, **settings: object) -> ecgdiff.Reconstruction:
    arguments = {"prior": prior, "sampler": FAST, "draws": 4, "allow": ANY, **settings}
    return reconstruct(recording, **arguments)  # type: ignore[arg-type]


def einthoven(x: np.ndarray) -> float:
    i, ii, iii, avr, avl, avf = (x[:, k].astype(np.float64) for k in range(6))
    gaps = (i + iii - ii, avr + (i + ii) / 2, avl - (i - iii) / 2, avf - (ii + iii) / 2)
    return max(float(np.abs(gap).max()) for gap in gaps)


def test_lead_one_to_twelve(gaussian: Prior) -> None:
    recording = ecg(gaussian, 4).select(["I"])
    result = run(gaussian, recording)
    assert result.draws.shape == (4, 12, 400) and np.isfinite(result.draws).all()
    assert einthoven(result.draws) < 1e-6
    np.testing.assert_allclose(result.draws[:, 0], recording.signal.repeat(4, 0), atol=1e-6)
    assert result.provenance == ("measured", *["synthetic"] * 11)
    assert (result.draws[0] != result.draws[1]).any()


@pytest.mark.parametrize("seconds", [2.5, 3.99, 4.0, 4.01, 9.7])
def test_any_duration(gaussian: Prior, seconds: float) -> None:
    result = run(gaussian, ecg(gaussian, seconds).select(["I", "II"]), draws=2)
    assert result.draws.shape[-1] == round(seconds * RATE)
    assert np.isfinite(result.draws).all() and einthoven(result.draws) < 1e-6


def test_too_short_is_refused_with_the_reason(gaussian: Prior) -> None:
    with pytest.raises(SignalQualityError, match=r"2\.5"):
        run(gaussian, ecg(gaussian, 2.0).select(["I"]), allow=())


@pytest.mark.parametrize("seconds", [4, 9])
def test_same_seed_same_draws_whatever_the_batch(gaussian: Prior, seconds: int) -> None:
    recording = ecg(gaussian, seconds).select(["I", "V2"])
    whole = run(gaussian, recording, draws=5, seed=3)
    parts = run(gaussian, recording, draws=5, seed=3, batch_size=2)
    np.testing.assert_allclose(whole.draws, parts.draws, atol=2e-4)
    first = run(gaussian, recording, draws=2, seed=3)
    np.testing.assert_allclose(whole.draws[:2], first.draws, atol=2e-4)
    other = run(gaussian, recording, draws=2, seed=4)
    assert np.abs(other.draws - first.draws).max() > 0.05


def test_nan_and_lost_are_the_same(gaussian: Prior) -> None:
    recording = ecg(gaussian, 4)
    lost = run(gaussian, recording, lost=["V1", (1.0, 2.5)])
    nan = run(gaussian, recording.with_lost(leads=["V1"], blocks=[(1.0, 2.5)]))
    np.testing.assert_array_equal(lost.draws, nan.draws)
    measured = ~np.isnan(lost.recording.signal)
    assert (lost.measured == measured).all()
    for draw in lost.draws:
        np.testing.assert_allclose(draw[measured], recording.signal[measured], atol=2e-6)


def test_lost_block_has_the_posterior_of_a_gaussian_prior(gaussian: Prior) -> None:
    """Mean and spread in the gap against dense algebra on the process, without filter and quality
    gate."""
    prepared = ecg(gaussian, 4).with_lost(blocks=[(1.5, 2.0)])
    result = run(gaussian, prepared, draws=200, noise=0.02, batch_size=100)
    p = prepare(prepared, RATE, 0.02)
    covariance = gaussian.denoiser.covariance
    assert covariance is not None
    dense = covariance.dense().numpy() * gaussian.scale**2
    seen = p.mask.flatten()
    gain = dense[np.ix_(~seen, seen)] @ np.linalg.inv(
        dense[np.ix_(seen, seen)] + np.diag(p.sigma.flatten()[seen].astype(float) ** 2)
    )
    mean = gain @ p.values.flatten()[seen]
    spread = np.sqrt(np.diag(dense[np.ix_(~seen, ~seen)] - gain @ dense[np.ix_(seen, ~seen)]))
    rows = [LEADS_12.index(lead) for lead in LEADS_8]
    drawn = (result.draws[:, rows] - p.baseline).reshape(200, -1)[:, ~seen]
    z = (drawn.mean(0) - mean) / (spread / np.sqrt(200))
    assert np.sqrt((z**2).mean()) < 1.3
    assert abs((drawn.std(0) / spread).mean() - 1) < 0.05


def test_windows_join_without_a_seam(gaussian: Prior) -> None:
    """Across a join neither the spread nor the steps between neighbors differ from elsewhere."""
    recording = ecg(gaussian, 12).select(["I"])
    result = run(gaussian, recording, draws=40, batch_size=40)
    assert result.meta["windows"] > 2
    v = result.draws[:, LEADS_12.index("V3")]
    windows = windowed.windows_of(gaussian, prepare(recording, RATE, 0.02))
    edges = [edge for w in windows[:-1] for edge in (w.keep - 175, w.keep, w.stop)]
    near = np.unique([edge + k for edge in edges for k in (-2, -1, 0, 1) if edge + k < 1150])
    inside = np.setdiff1d(np.arange(50, 1150), near)
    spread, steps = v.std(0), np.diff(v, axis=1).std(0)
    for quantity in (spread, steps):
        assert abs(quantity[near].mean() / quantity[inside].mean() - 1) < 0.05
    # Neighbors in the same draw belong together: a shuffled continuation would step far more.
    assert steps[near].max() < 1.6 * np.median(steps)


def test_a_gap_at_the_end_of_a_window_is_drawn_with_both_sides(gaussian: Prior) -> None:
    """The spread in a short gap is small wherever the gap lies: nothing is drawn blind."""
    spreads = []
    for start in (1.0, 3.9):
        recording = ecg(gaussian, 9).with_lost(blocks=[(start, start + 0.06)])
        result = run(gaussian, recording, draws=40, batch_size=40)
        gap = result.draws[..., round(100 * start) : round(100 * start) + 6]
        spreads.append(gap.std(0).mean())
    assert max(spreads) < 1.2 * min(spreads)


def test_synthetic_leads_are_no_evidence(gaussian: Prior) -> None:
    """Feeding draws back in must not turn them into measurements."""
    first = run(gaussian, ecg(gaussian, 4).select(["I"]), draws=2)
    again = run(gaussian, first.to_recording(0), draws=2)
    assert again.provenance == first.provenance
    assert (again.measured == first.measured).all()
    derived = ecg(gaussian, 4).select(["I", "II"]).complete_limb_leads()
    assert run(gaussian, derived, draws=1).provenance[:3] == ("measured", "measured", "derived")


def test_two_recordings_do_not_share_their_noise(gaussian: Prior) -> None:
    a, b = (run(gaussian, ecg(gaussian, 4, k).select(["I"]), draws=1, seed=0) for k in (0, 1))
    drift = a.baseline - b.baseline
    left, right = a.draws[0, 7] - a.baseline[7], b.draws[0, 7] - b.baseline[7]
    assert abs(np.corrcoef(left, right)[0, 1]) < 0.5 and np.isfinite(drift).all()


def test_one_draw_has_no_spread(gaussian: Prior) -> None:
    assert np.isnan(run(gaussian, ecg(gaussian, 4).select(["I"]), draws=1).std()).all()


def test_long_draws_live_in_a_file(gaussian: Prior, monkeypatch: pytest.MonkeyPatch) -> None:
    recording = ecg(gaussian, 9).select(["I"])
    expected = run(gaussian, recording)
    monkeypatch.setattr(windowed, "IN_MEMORY_BYTES", 1000)
    result = run(gaussian, recording)
    assert isinstance(result.draws, np.memmap)
    np.testing.assert_array_equal(result.draws, expected.draws)


def test_result_statistics(gaussian: Prior) -> None:
    result = run(gaussian, ecg(gaussian, 4).select(["I"]), draws=5)
    np.testing.assert_allclose(result.mean(), result.draws.mean(0), atol=1e-6)
    np.testing.assert_allclose(result.std(), result.draws.std(0, ddof=1), atol=1e-5)
    # Rank k of m draws is the quantile k / (m + 1).
    ranked = np.sort(result.draws, axis=0)
    np.testing.assert_allclose(result.quantile([1 / 6, 0.5, 0.99]), ranked[[0, 2, 4]], atol=1e-6)
    median = result.to_recording()
    assert median.leads == LEADS_12 and median.provenance == result.provenance
    assert einthoven(median.signal[None]) < 1e-6
    np.testing.assert_allclose(
        median.lead("V4"), np.median(result.draws[:, LEADS_12.index("V4")], axis=0), atol=1e-6
    )
    np.testing.assert_array_equal(result.to_recording(2).signal, result.draws[2])
    with pytest.raises(ValueError, match="no draw 5"):
        result.to_recording(5)


def test_notes_tell_what_the_user_did_not_ask_for(gaussian: Prior) -> None:
    recording = ecg(gaussian, 9)
    asked = run(gaussian, recording, lost=[(3.0, 4.0)])
    assert not [w for w in asked.meta["warnings"] if "measured for only" in w]
    gap = recording.with_lost(lead_blocks={"V1": [(3.0, 4.0)]})
    told = run(gaussian, gap, lost=[(5.0, 6.0)]).meta["warnings"]
    assert [w.split(" was")[0] for w in told if "measured for only" in w] == ["Lead V1"]


def test_what_was_drawn_before_is_not_drawn_from(gaussian: Prior) -> None:
    recording = ecg(gaussian, 4)
    words = ("measured", "synthetic", *["measured"] * 10)
    with pytest.raises(SignalQualityError, match="All leads of this recording are marked"):
        run(gaussian, replace(recording, provenance=("synthetic",) * 12))
    # A measured lead that holds nothing does not make up for the others.
    empty = recording.with_lost(["I"]).select(["I", "II"])
    with pytest.raises(SignalQualityError, match="Nothing was measured"):
        run(gaussian, replace(empty, provenance=words[:2]))


def test_clear_refusals(gaussian: Prior) -> None:
    recording = ecg(gaussian, 4)
    with pytest.raises(TypeError, match=r"got a str; read a file with ecgdiff\.read"):
        reconstruct("watch.csv")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Unknown sampler 'magic'"):
        run(gaussian, recording, sampler="magic")
    with pytest.raises(ValueError, match="at least 1"):
        run(gaussian, recording, draws=0)
    with pytest.raises(ValueError, match="no lead"):
        run(gaussian, recording.select(["I"]), lost=["V1"])
    with pytest.raises(OperatorError, match="none of the twelve"):
        run(gaussian, Recording(recording.signal[:1], RATE, ("chest",)))
    with pytest.raises(SignalQualityError):
        run(gaussian, Recording(np.zeros((1, 400)), RATE, ("I",)), allow=())


def test_lose_takes_leads_blocks_and_mappings(gaussian: Prior) -> None:
    recording = ecg(gaussian, 4).select(["I", "II"])
    assert lose(recording, ()) is recording
    assert np.isnan(lose(recording, "II").lead("II")).all()
    both = lose(recording, ["I", (1.0, 2.0)])
    assert np.isnan(both.lead("I")).all() and np.isnan(both.lead("II")[100:200]).all()
    one = lose(recording, {"II": [(0.0, 1.0)]})
    assert np.isnan(one.lead("II")[:100]).all() and not np.isnan(one.lead("I")).any()
    same = lose(recording, [("II", 0.0, 1.0)])
    np.testing.assert_array_equal(same.signal, one.signal)
    mixed = lose(recording, ["I", ("II", 0.0, 1.0), (2.0, 3.0), ("II", 3.5, 4.0)])
    assert np.isnan(mixed.lead("I")).all()
    lost = np.flatnonzero(np.isnan(mixed.lead("II")))
    assert lost.tolist() == [*range(100), *range(200, 300), *range(350, 400)]


@pytest.mark.parametrize(
    "lost", [(3.0, 5.5), [("V1", "V2")], {"V1": (3, 5)}, 3.0, [(1.0,)], {"V1": 3.0}]
)
def test_misunderstood_losses_are_explained(gaussian: Prior, lost: object) -> None:
    with pytest.raises(ValueError, match=r"lost takes lead names, \(start, stop\)"):
        run(gaussian, ecg(gaussian, 4), lost=lost)


def test_priors_that_do_not_fit_are_refused(gaussian: Prior) -> None:
    other = replace(gaussian, leads=tuple(reversed(LEADS_8)))
    with pytest.raises(OperatorError, match="reconstruct needs I, II, V1"):
        run(other, ecg(gaussian, 4))
    with pytest.raises(OperatorError, match=r"above 0\.05 Hz"):
        run(replace(gaussian, config={"highpass_hz": 0.05}), ecg(gaussian, 4))


def test_progress_ends_at_its_total(gaussian: Prior) -> None:
    told: list[tuple[int, int]] = []
    run(
        gaussian,
        ecg(gaussian, 9).select(["I"]),
        batch_size=2,
        progress=lambda a, b: told.append((a, b)),
    )
    done = [a for a, _ in told]
    assert done == sorted(done) and told[-1][0] == told[-1][1]


class Quiet(nn.Module):
    """A network that predicts nothing, for draws whose method is all that matters."""

    def forward(self, u: Tensor, level: Tensor, trusted: Tensor) -> Tensor:
        return torch.zeros_like(u)


def test_the_method_follows_from_what_was_measured(gaussian: Prior) -> None:
    shown = replace(gaussian, denoiser=InpaintingDenoiser(Quiet(), Schedule.linear()))
    recording = ecg(gaussian, 4)

    def method(prior: Prior, *leads: str) -> str:
        result = run(prior, recording.select(leads), sampler=None, draws=1)
        return str(result.meta["sampler"]).split("(")[0]

    assert method(shown, "I") == method(shown, "II", "V3") == "Conditional"
    # aVF alone is a mixture of I and II, which the network has no place for.
    assert method(shown, "aVF") == "MMPS"
    assert method(gaussian, "I") == "MMPS"
    noisy = run(shown, recording.select(["I"]), sampler=None, draws=1, noise=0.9)
    assert "MMPS" in noisy.meta["sampler"]  # 4.5 standard deviations of this signal
    with pytest.raises(OperatorError, match="MMPS"):
        run(shown, recording.select(["aVF"]), sampler="conditional")


def test_samplers_take_settings_by_name(gaussian: Prior) -> None:
    result = run(gaussian, ecg(gaussian, 4).select(["I"]), sampler="surrogate:steps=3", draws=1)
    assert "Surrogate(steps=3" in result.meta["sampler"]


def test_the_embedded_prior_follows_from_what_was_measured() -> None:
    used = {}
    for lead in ("I", "aVF"):
        result = reconstruct(load_truth().select([lead]), draws=1)
        used[lead] = (result.meta["prior"], str(result.meta["sampler"]).split("(")[0])
        assert einthoven(result.draws) < 1e-3
    assert used == {"I": ("inpainting", "Conditional"), "aVF": ("default", "MMPS")}


def test_a_network_is_not_asked_for_patterns_that_it_never_saw(gaussian: Prior) -> None:
    """The check is of what it was trained on; samplers that guide show it nothing."""

    def trained(*patterns: str) -> Prior:
        return replace(gaussian, config={"training": {"hyperparameters": {"patterns": patterns}}})

    recording = ecg(gaussian, 4)
    with pytest.raises(OperatorError, match="trained on the patterns half, blocks only"):
        run(trained("half", "blocks"), recording, lost=["V1"], sampler=Conditional(steps=2))
    run(trained("half"), recording, lost=["V1"])
    for patterns, lost in ((("half",), (1.0, 2.0)), (("half", "leads"), "V1"), ((), "V1")):
        trained(*patterns).check_shown(prepare(lose(recording, [lost]), RATE, 0.02).usable)
