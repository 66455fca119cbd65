"""The result of reading an ECG or its draws: a probability per condition, and how sure it is."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["NOTICE", "Diagnosis"]

NOTICE = "Research use only, not for clinical or diagnostic purposes."
# Above such a threshold lies much that is far from probable.
_FAR_BELOW_HALF = 0.05
_HEAD = ("condition", "probability", "interval", "votes", "threshold", "reading")


@dataclass(frozen=True, eq=False, repr=False)
class Diagnosis:
    """Creates the result.

    Arguments:
        conditions: The SCP codes that were asked for.
        names: What they say.
        probability: Of each condition in each draw, shape (draws, conditions); one draw for a
            measured ECG.
        thresholds: The validation thresholds, shape (conditions,); NaN where there was none.
        level: The level of the interval over draws.
        meta: Classifier, rule, and what was read.
    """

    conditions: tuple[str, ...]
    names: tuple[str, ...]
    probability: NDArray[np.float64]
    thresholds: NDArray[np.float64]
    level: float = 0.9
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "meta", MappingProxyType(dict(self.meta)))

    def __reduce__(self) -> tuple[Any, ...]:
        # A read-only mapping cannot be pickled.
        state = (self.conditions, self.names, self.probability, self.thresholds, self.level)
        return (Diagnosis, (*state, dict(self.meta)))

    def mean(self) -> NDArray[np.float64]:
        """The probability averaged over draws, shape (conditions,)."""
        return np.asarray(self.probability.mean(0))

    def interval(self) -> NDArray[np.float64]:
        """The central interval over draws, shape (2, conditions).

        Rank k of m draws estimates the quantile k / (m + 1); beyond the extreme ranks the extreme
        draws are returned, so few draws give less than `level`.
        """
        tail = (1 - self.level) / 2
        return np.quantile(self.probability, [tail, 1 - tail], axis=0, method="weibull")

    def reached(self) -> float | None:
        """The level that the interval reaches with so many draws; None with one, without any."""
        count = len(self.probability)
        return min(self.level, (count - 1) / (count + 1)) if count > 1 else None

    def votes(self) -> NDArray[np.float64]:
        """The share of draws at or above the threshold, shape (conditions,); NaN without one."""
        votes = (self.probability >= self.thresholds).mean(0)
        return np.where(np.isnan(self.thresholds), np.nan, votes)

    def readings(self) -> tuple[str, ...]:
        """One word per condition.

        "above threshold" or "below threshold" if the whole interval is, else "undecided"; "no
        threshold" where validation gave none.
        """
        low, high = self.interval()
        words = []
        for at, a, b in zip(self.thresholds, low, high, strict=True):
            if np.isnan(at):
                words.append("no threshold")
            elif a >= at:
                words.append("above threshold")
            else:
                words.append("below threshold" if b < at else "undecided")
        return tuple(words)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain numbers and words, for JSON; one signal has no interval or votes."""
        low, high = self.interval()
        reached = self.reached()
        entries = zip(
            self.conditions,
            self.names,
            self.mean(),
            low,
            high,
            self.votes(),
            self.thresholds,
            self.readings(),
            strict=True,
        )
        return {
            "conditions": [
                {
                    "code": code,
                    "name": name,
                    "probability": _number(p),
                    "low": None if reached is None else _number(a),
                    "high": None if reached is None else _number(b),
                    "votes": None if reached is None else _number(vote),
                    "threshold": _number(at),
                    "reading": word,
                }
                for code, name, p, a, b, vote, at, word in entries
            ],
            "level": self.level,
            "reached": None if reached is None else _number(reached),
            "draws": len(self.probability),
            **self.meta,
            "warnings": [*self.meta.get("warnings", ()), *self._cautions()],
            "notice": NOTICE,
        }

    def __repr__(self) -> str:
        rows = [list(_HEAD), *self._cells()]
        widths = [max(len(row[k]) for row in rows) for k in range(len(_HEAD))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        return "\n".join([*lines, *self._footer()])

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{cell}</th>" for cell in _HEAD)
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
            for row in self._cells()
        )
        footer = "<br>".join(escape(line) for line in self._footer())
        return f"<table><tr>{head}</tr>{body}</table><p>{footer}</p>"

    def _cells(self) -> list[list[str]]:
        low, high = self.interval()
        several = len(self.probability) > 1
        return [
            [
                f"{code} ({name})",
                _shown(p),
                f"{_shown(a)}-{_shown(b)}" if several else "-",
                f"{vote:.0%}" if several and not np.isnan(vote) else "-",
                _shown(at) if not np.isnan(at) else "-",
                word,
            ]
            for code, name, p, a, b, vote, at, word in zip(
                self.conditions,
                self.names,
                self.mean(),
                low,
                high,
                self.votes(),
                self.thresholds,
                self.readings(),
                strict=True,
            )
        ]

    def _footer(self) -> list[str]:
        return [*self._cautions(), f"{self._source()}. {NOTICE}"]

    def _cautions(self) -> list[str]:
        """That "above threshold" is not "probable", where it is said of what is not."""
        said = zip(self.conditions, self.thresholds, self.mean(), self.readings(), strict=True)
        codes = [
            code
            for code, at, p, word in said
            if word == "above threshold" and at < _FAR_BELOW_HALF and p < 0.5
        ]
        if not codes:
            return []
        return [
            f'"Above threshold" is not "probable": the threshold of {", ".join(codes)} lies far '
            "below one half."
        ]

    def _source(self) -> str:
        count = len(self.probability)
        read = str(self.meta.get("read", "one signal" if count == 1 else f"{count} draws"))
        reached = self.reached()
        if reached is None:
            return f"Read from {read}: no interval"
        return f"Read from {read}: average and {reached:.0%} interval"


def _shown(value: float) -> str:
    """Three decimals, or as many as a small number needs to be told from zero."""
    if 0 < value < 5e-5:
        return "<0.0001"
    return f"{value:.3f}" if value >= 0.01 or value == 0 else f"{value:.4f}"


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(f"{value:.6g}")
