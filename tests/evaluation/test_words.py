"""How often `diagnose` says which word, on rows whose draws are known."""

from typing import Any

import numpy as np
import pytest

from ecgdiff.data.statements import CONDITIONS
from ecgdiff.evaluation.words import shares, table

HALF = np.full(4, 0.5)
SURE, TORN, NO = [0.9] * 4, [0.9, 0.9, 0.9, 0.1], [0.1] * 4


def row(k: int, draws: list[float], made: bool, weight: float = 1.0) -> dict[str, Any]:
    return {
        "ecg_id": k,
        "patient_id": k,
        "weight": weight,
        "statements": [CONDITIONS[0]] if made else [],
        "probabilities": {"draws": dict.fromkeys(CONDITIONS, draws)},
    }


ROWS = [
    row(0, SURE, True, 3.0),
    row(1, TORN, True),
    row(2, NO, False),
    row(3, NO, False),
    row(4, TORN, False, 2.0),
]


def test_shares_are_those_counted_by_hand() -> None:
    found = shares({"m": ROWS}, HALF, resamples=20)["m"]
    first = {key: entry["value"][0] for key, entry in found.items()}
    assert first == pytest.approx(
        {
            "above threshold, with it": 0.75,
            "undecided, with it": 0.25,
            "below threshold, with it": 0.0,
            "votes, with it": (3 + 0.75) / 4,
            "above threshold, without": 0.0,
            "undecided, without": 0.5,
            "below threshold, without": 0.5,
            "votes, without": 0.375,
        }
    )
    for entry in found.values():
        assert entry["low"][0] is not None and entry["high"][0] is not None
        assert entry["low"][0] <= entry["value"][0] <= entry["high"][0]  # type: ignore[operator]
    # Nobody has the others.
    assert found["votes, with it"]["value"][1:] == [None] * 3


def test_a_single_draw_has_no_words() -> None:
    alone = [row(k, [0.9], True) for k in range(3)]
    none = [{**r, "probabilities": {"mean": {}}} for r in ROWS]
    assert list(shares({"alone": alone, "none": none, "m": ROWS}, HALF, resamples=2)) == ["m"]


def test_the_table_has_a_row_per_condition_and_method() -> None:
    made = table(shares({"a": ROWS, "b": ROWS}, HALF, resamples=2), "leads")
    assert [line[:2] for line in made.body[:3]] == [
        [CONDITIONS[0], "`a`"],
        [CONDITIONS[0], "`b`"],
        [CONDITIONS[1], "`a`"],
    ]
    assert made.body[0][2].startswith("75.0 [")
    assert made.body[2][2] == "-"
    assert {len(line) for line in made.body} == {len(made.head)}
    assert made.task == "leads"
