"""Spectra of sinusoids and white noise, whose power is known."""

import numpy as np
import pytest

from ecgdiff.evaluation.spectra import (
    BANDS,
    band_power,
    compare_spectra,
    log_spectral_distance,
    power_spectrum,
)

TIME = np.arange(1000) / 100


@pytest.mark.parametrize(
    ("hertz", "band"), [(2.0, "0.5-5 Hz"), (9.0, "5-15 Hz"), (30.0, "15-40 Hz")]
)
def test_a_sinusoid_has_half_its_squared_amplitude_in_its_band(hertz: float, band: str) -> None:
    signal = 0.4 * np.sin(2 * np.pi * hertz * TIME + 0.3)
    frequencies, density = power_spectrum(signal, 100.0)
    assert frequencies[np.argmax(density)] == pytest.approx(hertz, abs=0.2)
    for name, limits in BANDS.items():
        expected = 0.4**2 / 2 if name == band else 0.0
        assert band_power(frequencies, density, limits) == pytest.approx(expected, abs=0.002)


def test_bands_add_up() -> None:
    frequencies, density = power_spectrum(np.random.default_rng(0).normal(size=(3, 1000)), 100.0)
    parts = sum(band_power(frequencies, density, band) for band in BANDS.values())
    np.testing.assert_allclose(parts, band_power(frequencies, density, (0.5, 40.0)))


def test_white_noise_is_white_in_the_right_units() -> None:
    signal = 0.1 * np.random.default_rng(1).normal(size=(400, 1000))
    frequencies, density = power_spectrum(signal, 100.0)
    inside = (frequencies > 1) & (frequencies < 49)
    np.testing.assert_allclose(density.mean(axis=0)[inside], 0.1**2 / 50, rtol=0.15)


def test_distance_of_scaled_signals_is_their_gain() -> None:
    signal = np.random.default_rng(2).normal(size=(2, 1000))
    frequencies, density = power_spectrum(signal, 100.0)
    _, half = power_spectrum(0.5 * signal, 100.0)
    expected = 20 * np.log10(2)
    np.testing.assert_allclose(log_spectral_distance(frequencies, half, density), expected)
    np.testing.assert_allclose(log_spectral_distance(frequencies, density, half), expected)


def test_distance_sees_lost_detail_that_power_does_not() -> None:
    rng = np.random.default_rng(3)
    smooth = np.cumsum(rng.normal(size=(50, 1000)), axis=-1)
    frequencies, true = power_spectrum(smooth + 0.1 * rng.normal(size=smooth.shape), 100.0)
    cut = np.where(frequencies < 20, true, 1e-4 * true)
    found = compare_spectra(frequencies, cut[:, None, None], true[:, None])
    assert found.power_ratio["0.5-5 Hz"] == pytest.approx(1.0)
    # 40 dB in the share of 0.5-40 Hz that lies above 20 Hz
    inside = (frequencies >= 0.5) & (frequencies < 40)
    share = np.mean(frequencies[inside] >= 20)
    assert found.distance_db == pytest.approx(40 * np.sqrt(share))


def test_comparison_averages_records_and_draws_before_it_compares() -> None:
    rng = np.random.default_rng(4)
    frequencies, true = power_spectrum(rng.normal(size=(5, 2, 1000)), 100.0)
    drawn = np.stack([0.5 * true, 1.5 * true], axis=1)
    drawn[:, :, 1] *= 4
    found = compare_spectra(frequencies, drawn, true)
    np.testing.assert_allclose(found.true, true.mean(axis=0))
    np.testing.assert_allclose(found.distance_db, [0.0, 10 * np.log10(4)], atol=1e-9)
    for ratio in found.power_ratio.values():
        np.testing.assert_allclose(ratio, [1.0, 4.0])


def test_a_lead_of_zeros_is_far_away_but_not_infinitely() -> None:
    frequencies, true = power_spectrum(np.random.default_rng(5).normal(size=(1, 1, 1000)), 100.0)
    found = compare_spectra(frequencies, 0 * true[:, None], true)
    assert np.isfinite(found.distance_db).all() and found.distance_db[0] > 60
    assert all(ratio[0] == 0 for ratio in found.power_ratio.values())
    without_truth = compare_spectra(frequencies, true[:, None], 0 * true)
    assert all(np.isnan(ratio[0]) for ratio in without_truth.power_ratio.values())


def test_short_signals_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 256 samples"):
        power_spectrum(np.zeros(255), 100.0)


def test_weights_are_repeated_records() -> None:
    rng = np.random.default_rng(6)
    frequencies, true = power_spectrum(rng.normal(size=(4, 2, 1000)), 100.0)
    drawn = rng.uniform(0.5, 2, size=(4, 3, 2, 1)) * true[:, None]
    often = [2, 0, 1, 5]
    weighted = compare_spectra(frequencies, drawn, true, 0.3 * np.array(often))
    repeated = compare_spectra(frequencies, *(np.repeat(x, often, axis=0) for x in (drawn, true)))
    alike = compare_spectra(frequencies, drawn, true)
    for name in ("drawn", "true", "distance_db"):
        found = getattr(weighted, name)
        np.testing.assert_allclose(found, getattr(repeated, name), rtol=1e-12)
        assert not np.allclose(found, getattr(alike, name), rtol=1e-2)
    for band in BANDS:
        a, b = weighted.power_ratio[band], repeated.power_ratio[band]
        np.testing.assert_allclose(a, b, rtol=1e-12)


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [0.0, 0.0], [1.0, np.nan]])
def test_weights_that_weigh_nothing_are_refused(weights: list[float]) -> None:
    frequencies, true = power_spectrum(np.random.default_rng(7).normal(size=(2, 1, 1000)), 100.0)
    with pytest.raises(ValueError, match="as many weights"):
        compare_spectra(frequencies, true[:, None], true, np.array(weights))
