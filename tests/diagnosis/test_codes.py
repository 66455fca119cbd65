"""Codes that are asked for: what is unknown is refused, and the error says what may be meant."""

from types import SimpleNamespace

import pytest

from ecgdiff.data.statements import CONDITIONS, NAMES, STATEMENTS
from ecgdiff.diagnosis import codes

PTBXL = SimpleNamespace(name="p", classes=STATEMENTS, names=NAMES)


@pytest.mark.parametrize(
    ("code", "meant"),
    [
        (
            "RBBB",
            "complete right bundle branch block is CRBBB, incomplete right bundle branch block is "
            "IRBBB",
        ),
        (
            "LBBB",
            "complete left bundle branch block is CLBBB, incomplete left bundle branch block is "
            "ILBBB",
        ),
        ("AF", "atrial fibrillation is AFIB, atrial flutter is AFLT"),
        ("SB", "sinus bradycardia is SBRAD"),
        ("afib", "atrial fibrillation is AFIB"),
    ],
)
def test_codes_that_may_be_meant_are_named_before_the_list(code: str, meant: str) -> None:
    with pytest.raises(ValueError) as refused:
        codes.asked_codes(["NORM", code], PTBXL)
    assert str(refused.value) == (
        f"The classifier p knows no statement {code!r} ({meant}); it knows "
        f"{', '.join(STATEMENTS)}."
    )


def test_nothing_is_suggested_that_the_classifier_does_not_know() -> None:
    few = SimpleNamespace(name="few", classes=("CRBBB", "NORM"), names=NAMES)
    with pytest.raises(ValueError, match=r"'LBBB'; it knows CRBBB, NORM\."):
        codes.asked_codes("LBBB", few)
    with pytest.raises(ValueError, match=r"right bundle branch block is CRBBB\); it knows"):
        codes.asked_codes("RBBB", few)
    with pytest.raises(ValueError, match=r"'banana'; it knows"):
        codes.asked_codes("banana", few)


def test_abbreviations_are_no_codes_and_stand_for_codes() -> None:
    assert not set(codes._MEANT) & set(STATEMENTS)
    assert {code for meant in codes._MEANT.values() for code in meant} < set(STATEMENTS)


def test_codes_one_code_or_all() -> None:
    assert codes.asked_codes(CONDITIONS, PTBXL) == CONDITIONS
    assert codes.asked_codes("AFIB", PTBXL) == ("AFIB",)
    assert codes.asked_codes("all", PTBXL) == STATEMENTS
