"""Samplers by name."""

import pytest

from ecgdiff.samplers import DDNM, DPS, MGDM, MGPS, SAMPLERS, Surrogate, named_sampler


def test_names_give_defaults_and_settings_are_read() -> None:
    assert {name: type(named_sampler(name)) for name in SAMPLERS} == SAMPLERS
    assert named_sampler("mgps") == MGPS()
    parsed = named_sampler("surrogate:steps=8,grid=log-snr,sigma_max=None")
    assert parsed == Surrogate(steps=8, grid="log-snr", sigma_max=None)
    parsed = named_sampler("dps:steps=50,grid=rho,sigma_min=0.01")
    assert parsed == DPS(steps=50, grid="rho", sigma_min=0.01)


def test_published_settings_have_names() -> None:
    assert named_sampler("ddnm.ecg") == DDNM.ecg()
    assert named_sampler("mgps.latent") == MGPS.latent()
    assert named_sampler("mgdm.images:steps=20") == MGDM.images(steps=20)
    assert named_sampler("mgps.ecg_leads:std=0.25,steps=9") == MGPS.ecg_leads(0.25, steps=9)
    assert named_sampler("dps.ecg:std=1.0") == DPS.ecg()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mgps.ecg", "'ecg' of 'mgps'; there are ecg_block, ecg_leads, images, latent, mixture"),
        ("surrogate.ecg", "'ecg' of 'surrogate'; it has none"),
        ("dps.nfe", "setting 'nfe' of 'dps'; there are ecg"),
        ("mgps.ecg_block:steps=9", r"add std.*\"mgps\.ecg_block:std=0\.236\""),
        ("ddnm.ecg:steps=9", "cannot be built"),
        ("nothing", "Unknown sampler 'nothing'; there are cadps"),
        ("surrogate:stepz=3", "surrogate:stepz=3.*stepz"),
        ("surrogate:steps=0", "at least 2 steps, got 0"),
        ("surrogate:steps", "cannot be built"),
        ("dps:grid=Uniform", "Unknown grid 'Uniform'; choose 'uniform'"),
    ],
)
def test_wrong_ones_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        named_sampler(text)
