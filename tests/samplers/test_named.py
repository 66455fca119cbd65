"""Samplers by name."""

import pytest

from ecgdiff.samplers import DPS, MGPS, SAMPLERS, Surrogate, named_sampler


def test_names_give_defaults_and_settings_are_read() -> None:
    assert {name: type(named_sampler(name)) for name in SAMPLERS} == SAMPLERS
    assert named_sampler("mgps") == MGPS()
    parsed = named_sampler("surrogate:steps=8,grid=log-snr,sigma_max=None")
    assert parsed == Surrogate(steps=8, grid="log-snr", sigma_max=None)
    parsed = named_sampler("dps:steps=50,grid=rho,sigma_min=0.01")
    assert parsed == DPS(steps=50, grid="rho", sigma_min=0.01)


@pytest.mark.parametrize(
    ("text", "message"),
    [
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
