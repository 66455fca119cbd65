"""The command: every experiment's settings are its options, and no folder gets into a result."""

import pytest

from ecgdiff.experiments import __main__ as command


@pytest.mark.parametrize("name", command.EXPERIMENTS)
def test_options_are_the_settings(name: str) -> None:
    given = vars(command._parser().parse_args([name, "--out", "here"]))
    assert (given.pop("name"), given.pop("out")) == (name, "here")
    setting = command.EXPERIMENTS[name].setting
    assert setting(**given) == setting()


def test_the_command_names_no_folder() -> None:
    text = command._command("ecg-budget", {"root": "/data/ptbxl", "rows": "/tmp/rows", "tune": 8})
    assert text == (
        "python -m ecgdiff.experiments ecg-budget --root PTBXL_DIR --rows ROWS --tune 8"
    )


def test_a_flag_stands_for_itself() -> None:
    assert command._parser().parse_args(["ecg-budget", "--halve"]).halve is True
    text = command._command("ecg-budget", {"halve": True, "tune": 8})
    assert text == "python -m ecgdiff.experiments ecg-budget --halve --tune 8"
    text = command._command("ecg-budget", {"halve": False, "tune": 8})
    assert text == "python -m ecgdiff.experiments ecg-budget --tune 8"
