"""Samplers by name."""

import pytest

from ecgdiff.samplers import (
    CADPS,
    DDNM,
    DING,
    DPS,
    MGDM,
    MGPS,
    MMPS,
    SAMPLERS,
    Surrogate,
    named_sampler,
)


def test_names_give_defaults_and_settings_are_read() -> None:
    assert {name: type(named_sampler(name)) for name in SAMPLERS} == SAMPLERS
    assert named_sampler("mgps") == MGPS()
    parsed = named_sampler("surrogate:steps=8,grid=log-snr,sigma_max=None")
    assert parsed == Surrogate(steps=8, grid="log-snr", sigma_max=None)
    parsed = named_sampler("dps:steps=50,grid=rho,sigma_min=0.01")
    assert parsed == DPS(steps=50, grid="rho", sigma_min=0.01)


def test_booleans_are_read_however_they_are_spelled() -> None:
    for no in ("False", "false"):
        assert named_sampler(f"ding:delayed={no}") == DING(delayed=False)
        assert named_sampler(f"cadps:cap={no}") == CADPS(cap=False)
    assert named_sampler("mmps:precondition=true") == MMPS(precondition=True)
    assert named_sampler("mgps:warm=none") == MGPS(warm=None)


def test_published_settings_have_names() -> None:
    assert named_sampler("ddnm.ecg") == DDNM.ecg()
    assert named_sampler("mgps.latent") == MGPS.latent()
    assert named_sampler("mgdm.images:steps=20") == MGDM.images(steps=20)
    assert named_sampler("mgps.ecg_leads:std=0.25,steps=9") == MGPS.ecg_leads(0.25, steps=9)
    assert named_sampler("dps.ecg:std=1.0") == DPS.ecg(1.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mgps.ecg", "'ecg' of 'mgps'; there are ecg_block, ecg_leads, images, latent, mixture"),
        ("surrogate.ecg", "'ecg' of 'surrogate'; it has none"),
        ("dps.nfe", "setting 'nfe' of 'dps'; there are ecg"),
        ("mgps.ecg_block:steps=9", r"add std.*\"mgps\.ecg_block:std=0\.236\""),
        ("ddnm.ecg:steps=9", "ddnm.ecg has no setting 'steps'; it has none"),
        ("nothing", "Unknown sampler 'nothing'; there are cadps"),
        ("surrogate:stepz=3", "surrogate:stepz=3.*'stepz'; it has steps, spread, grid"),
        ("mgps.images:std=1", "mgps.images has no setting 'std'; it has steps"),
        ("surrogate:steps=0", "at least 2 steps, got 0"),
        ("surrogate:steps", "cannot be built"),
        ("surrogate:steps=8.5", "steps must be a whole number, got 8.5"),
        ("surrogate:steps=True", "steps must be a whole number, got True"),
        ("mmps:iterations=1.5", "iterations must be a whole number, got 1.5"),
        ("mmps:precondition=no", "precondition must be True or False, got 'no'"),
        (
            "mgps:gradient_steps=2.5",
            "gradient_steps must be a whole number or a function, got 2.5",
        ),
        ("mgps:midpoint=half", "midpoint must be a number or a function, got 'half'"),
        ("mgps:warm=700.5", "warm must be a whole number or None, got 700.5"),
        ("conditional:above=x", "above must be a number, got 'x'"),
        ("conditional:sigma_max=x", "sigma_max must be a number or None, got 'x'"),
        ("daps:variance=true", "variance must be a number"),
        ("daps:variance=wide", "variance must be 'level' or positive, got 'wide'"),
        ("dps:sigma_min=0.1", 'grid "uniform" takes its levels from the schedule'),
        ("dps:grid=Uniform", "Unknown grid 'Uniform'; choose 'uniform'"),
    ],
)
def test_wrong_ones_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        named_sampler(text)
