"""Samplers by name."""

import pytest

from ecgdiff.samplers import MGPS, SAMPLERS, Surrogate, named_sampler


def test_names_give_defaults_and_settings_are_read() -> None:
    assert {name: type(named_sampler(name)) for name in SAMPLERS} == SAMPLERS
    assert named_sampler("mgps") == MGPS()
    parsed = named_sampler("surrogate:steps=8,grid=log-snr,sigma_max=None")
    assert parsed == Surrogate(steps=8, grid="log-snr", sigma_max=None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nothing", "Unknown sampler 'nothing'; there are cadps"),
        ("surrogate:stepz=3", "surrogate:stepz=3.*stepz"),
        ("surrogate:steps=0", "at least 2 steps, got 0"),
        ("surrogate:steps", "cannot be built"),
    ],
)
def test_wrong_ones_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        named_sampler(text)
