import shlex

import pytest

from ecgdiff.cli.main import _parser
from ecgdiff.ecg._wording import argument


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("sampling_rate", 250, "sampling_rate=250.0 (--sampling-rate 250)"),
        ("sampling_rate", 511.422, "sampling_rate=511.422 (--sampling-rate 511.422)"),
        ("units", "mV", 'units="mV" (--units mV)'),
        ("units", "milli volt", "units=\"milli volt\" (--units 'milli volt')"),
        ("leads", ("I",), 'leads=("I",) (--leads I)'),
        ("leads", ("I", "II"), 'leads=("I", "II") (--leads I II)'),
        ("allow", ("flat",), 'allow=("flat",) (--allow flat)'),
    ],
)
def test_an_argument_is_named_in_both_languages(name, value, expected):
    said = argument(name, value)
    assert said == expected
    python, option = said.rstrip(")").split(" (--", 1)
    values = eval(f"dict({python})")
    command = ["reconstruct", "ecg.csv", "--out", "results", *shlex.split(f"--{option}")]
    understood = getattr(_parser().parse_args(command), name)
    expected = values[name]
    assert understood == (list(expected) if isinstance(expected, tuple) else expected)
