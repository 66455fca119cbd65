"""Cells of a CSV file: which are numbers, and what messages may say of the others.

A cell can hold the name of a person or a date of birth. Messages give its place, and repeat what
it holds only where it can be neither: lead names and other words that are usual in such files, and
one or two characters.
"""

import math
import re

from ecgdiff.ecg.io import _border

__all__ = ["is_date", "is_number", "is_short", "is_usual", "number"]

_NUMBER = re.compile(r"[+-]?([0-9]+([.,][0-9]*)?|[.,][0-9]+)(e[+-]?[0-9]{1,3})?", re.IGNORECASE)
_DATE = re.compile(r"[0-9]{4}-[0-9]{1,2}-|([0-9]{1,2}[./]){2}[0-9]{2}|[0-9]{1,2}:[0-9]{2}")
_FILLERS = {"null", "none", "n/a", "inf", "+inf", "-inf", "true", "false", "mv", "uv", "v"}
_USUAL = re.compile(
    "t|times?|timestamps?|date|datetime|zeit|sec|seconds|index|idx|id|unnamed|samples?|row|n|frame|"
    "leads?|ecg|ekg|signals?|channel|ch|adc|raw|values?|voltage|amplitude|filtered|resp|pleth|ppg|"
    "abp|art|cvp|icp|bp|eeg|emg|eog|eda|gsr|acc|gyro|x|y|z|temp|temperature|hr|heart|rate|pulse|rr|"
    "spo|bpm|mlii|labels?|class|target|annotations?|ann|beats?|rhythm|events?|marker|quality|"
    "respiration|patient|subject|name|record"
)


def is_number(cell: str) -> bool:
    """Whether a cell holds a number or `nan`."""
    text = cell.strip()
    return text.lower() == "nan" or _NUMBER.fullmatch(text) is not None


def is_date(cell: str) -> bool:
    """Whether a cell holds a date or a time of day."""
    return _DATE.match(cell.strip()) is not None


def is_usual(name: str) -> bool:
    """Whether the name of a column can be nobody's name or birthday."""
    words = re.findall(r"[^\W\d_]+", name.lower())
    usual = bool(words) and all(map(_USUAL.fullmatch, words))
    few_digits = sum(map(str.isdigit, name)) < 4
    return (usual and few_digits) or _border.known_lead(name) is not None


def is_short(cell: str) -> bool:
    """Whether a cell is too short, or too usual, to be a person's name or birthday."""
    text = cell.strip()
    return len(text) <= 2 or text.lower() in _FILLERS


def number(cell: str, seen: set[str]) -> float | None:
    """Reads a cell: NaN if nothing was measured, None if it is no number; `seen` gets its mark."""
    text = cell.strip()
    if text.lower() in ("", "nan"):
        return math.nan
    if not _NUMBER.fullmatch(text):
        return None
    seen.update(mark for mark in ".," if mark in text)
    return float(text.replace(",", "."))
