"""The card says what the configuration holds, whatever the recipe was."""

import json
from pathlib import Path
from typing import Any

import pytest

import ecgdiff
from ecgdiff.lightning.card import write_card

PRIORS = Path(ecgdiff.__file__).parent / "priors"


def config(name: str, **changes: Any) -> dict[str, Any]:
    """The configuration of an embedded prior, with another recipe."""
    found: dict[str, Any] = json.loads((PRIORS / name / "config.json").read_text("utf-8"))
    for part in (found, found["training"], found["training"]["hyperparameters"]):
        part |= {key: value for key, value in changes.items() if key in part}
    found["training"]["ema_decays"] = changes.get("ema_decays", ["0.999", "0.9995"])
    return found


@pytest.mark.parametrize("name", ["default", "inpainting"])
def test_the_numbers_of_the_embedded_cards_are_those_of_their_configurations(name: str) -> None:
    shipped = (PRIORS / name / "README.md").read_text(encoding="utf-8")
    tables = [line for line in shipped.splitlines() if line.startswith("| ")]
    made = write_card(config(name)).splitlines()
    worded = ("| leads |", "| license |")  # in older words
    missing = [line for line in tables if line not in made and not line.startswith(worded)]
    assert not missing


def test_a_card_of_the_papers_recipe_says_nothing_of_others() -> None:
    leads = ["I", "II", "III", "V1", "V2", "V3", "V4", "V5", "V6"]
    card = write_card(
        config(
            "default",
            objective="eps",
            leads=leads,
            n_samples=256,
            ema_decay="0.0",
            ema_decays=["0.0"],
        )
    )
    assert "over 2.56 s of the complete ECG" in card and "100 Hz, 256 samples" in card
    assert "(the other 3 follow)" in card
    assert "levels uniform over the steps of the schedule, the last weights |" in card
    for absent in ("ln sigma", "EMA", "chosen", "10 s", "small prior", "Apache"):
        assert absent not in card


def test_a_card_says_what_was_shown() -> None:
    card = write_card(config("inpainting"))
    assert "noise of 0.085 model units: half of the records showed lead I, half 1.28 s" in card
    assert "patterns" not in card and "100 Hz, 1000 samples" in card
    card = write_card(config("inpainting", patterns=["half"], lengths=[256], n_samples=256))
    assert "| shown | patterns half only |" in card
    card = write_card(config("inpainting", lengths=[1000, 256]))
    assert "100 Hz, 1000 and 256 samples" in card
