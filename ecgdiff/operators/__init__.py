"""Operators: what was observed of a signal, y = A(x) + noise."""

from ecgdiff.operators.base import LinearOperator, Observation, Operator, observe
from ecgdiff.operators.dense import Dense
from ecgdiff.operators.masks import Mask, RotatedMask

__all__ = ["Dense", "LinearOperator", "Mask", "Observation", "Operator", "RotatedMask", "observe"]
