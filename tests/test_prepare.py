"""Any pattern of measured leads is written into the prior's rows, and comes back as measured."""

import numpy as np
import pytest

from ecgdiff.ecg.leads import LEADS_8, LEADS_12, LIMB, derive_12
from ecgdiff.ecg.recording import Recording
from ecgdiff.errors import OperatorError
from ecgdiff.prepare import prepare, restore

RATE, N = 100.0, 1000


def twelve(seed: int = 0) -> Recording:
    rng = np.random.default_rng(seed)
    time = np.arange(N) / RATE
    slow = 0.2 * np.sin(2 * np.pi * 0.15 * time + rng.uniform(0, 6, (8, 1)))
    fast = 0.3 * np.sin(2 * np.pi * 4 * time + rng.uniform(0, 6, (8, 1)))
    signal = derive_12(slow + fast + 0.02 * rng.standard_normal((8, N)))
    return Recording(signal, RATE, LEADS_12)


def einthoven(x: np.ndarray) -> float:
    i, ii, iii, avr, avl, avf = (x[..., k, :].astype(np.float64) for k in range(6))
    gaps = (i + iii - ii, avr + (i + ii) / 2, avl - (i - iii) / 2, avf - (ii + iii) / 2)
    return max(float(np.abs(gap).max()) for gap in gaps)


def anything(count: int = 3) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((count, 8, N))


@pytest.mark.parametrize(
    "kept",
    [
        ("I",),
        ("III",),
        ("aVR",),
        ("aVL", "V3"),
        ("aVF",),
        ("I", "II", "V1"),
        ("III", "aVL"),
        ("aVR", "aVL", "aVF"),
        LIMB,
        ("V1", "V6"),
        LEADS_12,
    ],
)
def test_measured_leads_return_and_the_limb_laws_hold(kept: tuple[str, ...]) -> None:
    truth = twelve()
    recording = truth.select(kept)
    prepared = prepare(recording, RATE, 0.02)
    draws = restore(anything(), prepared)
    for lead in kept:
        row = LEADS_12.index(lead)
        np.testing.assert_allclose(
            draws[:, row], np.broadcast_to(truth.lead(lead), draws[:, row].shape), atol=1e-6
        )
        assert prepared.measured[row].all()
    assert einthoven(draws) < 1e-6
    known = recording.complete_limb_leads().leads if len(set(kept) & set(LIMB)) > 1 else kept
    expected = {lead: "measured" if lead in kept else "derived" for lead in known}
    for lead, word in zip(LEADS_12, prepared.provenance, strict=True):
        assert word == expected.get(lead, "synthetic")


def test_rows_of_plain_leads_are_the_filtered_leads() -> None:
    prepared = prepare(twelve().select(["I", "V2"]), RATE, 0.02)
    assert not prepared.rotated
    assert prepared.mask.all(1).tolist() == [lead in ("I", "V2") for lead in LEADS_8]
    assert (prepared.values[1] == 0).all() and (prepared.baseline[1] == 0).all()
    # The 0.15 Hz drift is gone, the 4 Hz wave is there.
    assert 0.19 < prepared.values[0].std() < 0.24


def test_a_lone_oblique_lead_measures_one_direction() -> None:
    """III = II - I measures (II - I)/sqrt 2 with noise sigma / sqrt 2."""
    truth = twelve()
    prepared = prepare(truth.select(["III"]), RATE, 0.04)
    assert prepared.rotated and prepared.mask.sum() == N
    np.testing.assert_allclose(prepared.rotation @ prepared.rotation.T, np.eye(8), atol=1e-12)
    row = int(prepared.mask.any(1).argmax())
    np.testing.assert_allclose(
        prepared.values[row] + prepared.baseline[row], truth.lead("III") / np.sqrt(2), atol=1e-6
    )
    np.testing.assert_allclose(prepared.sigma[row], 0.04 / np.sqrt(2), rtol=1e-6)


def test_noise_of_derived_rows_follows_from_the_leads_used() -> None:
    """II = I + III has the variance of both."""
    prepared = prepare(twelve().select(["I", "III"]), RATE, {"I": 0.03, "III": 0.04})
    np.testing.assert_allclose(prepared.sigma[0], 0.03, rtol=1e-6)
    np.testing.assert_allclose(prepared.sigma[1], 0.05, rtol=1e-6)


def test_lost_blocks_keep_the_baseline_continuous() -> None:
    truth = twelve()
    prepared = prepare(truth.with_lost(blocks=[(3, 5)]), RATE, 0.02)
    assert not prepared.mask[:, 300:500].any() and prepared.mask[:, :300].all()
    assert np.abs(np.diff(prepared.baseline, axis=1)).max() < 0.02
    draws = restore(anything(), prepared)
    np.testing.assert_allclose(
        draws[:, :, :300], truth.signal[None, :, :300].repeat(3, 0), atol=2e-6
    )


def test_partly_measured_limb_leads() -> None:
    """II measured only at first: there the limb leads are known, later only lead I is."""
    recording = twelve().select(["I", "II"]).with_lost(lead_blocks={"II": [(6, 10)]})
    prepared = prepare(recording, RATE, 0.02)
    assert prepared.measured[:6, :600].all()
    assert prepared.measured[0].all() and not prepared.measured[1:6, 600:].any()
    assert prepared.provenance[:2] == ("measured", "synthetic")


def test_other_rates_are_resampled() -> None:
    prepared = prepare(twelve().select(["I"]).resample(511.6), RATE, 0.02)
    assert prepared.n_samples == N
    error = prepared.values[0] + prepared.baseline[0] - twelve().lead("I")
    assert np.abs(error[20:-20]).max() < 0.02


def test_what_cannot_be_written_is_refused() -> None:
    one = Recording(twelve().signal[:1], RATE, ("chest",))
    with pytest.raises(OperatorError, match="with_leads_as"):
        prepare(one, RATE, 0.02)
    mixed = twelve().select(["I", "III"]).with_lost(lead_blocks={"I": [(0, 5)], "III": [(5, 10)]})
    with pytest.raises(OperatorError, match="stand alone at different times"):
        prepare(mixed, RATE, 0.02)
    with pytest.raises(ValueError, match="no value for V1"):
        prepare(twelve().select(["I", "V1"]), RATE, {"I": 0.02})
    for noise in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="must be positive"):
            prepare(twelve(), RATE, noise)


def test_a_short_measured_island_is_kept_but_not_shown_to_the_prior() -> None:
    """A fifth of a second cannot tell ECG from baseline; half a second can."""
    truth = twelve().select(["I", "V1"])
    lost = truth.with_lost(lead_blocks={"V1": [(0, 4), (4.2, 7), (7.6, 10)]})
    prepared = prepare(lost, RATE, 0.02)
    assert prepared.mask[2].sum() == 80 and prepared.usable[2].sum() == 60
    assert prepared.usable[0].all()
    draws = restore(anything(), prepared)
    np.testing.assert_allclose(draws[0, 6, 400:420], truth.lead("V1")[400:420], atol=1e-6)


def test_noise_in_microvolts_is_noticed() -> None:
    with pytest.raises(ValueError, match="is it in µV"):
        prepare(twelve(), RATE, 20.0)
