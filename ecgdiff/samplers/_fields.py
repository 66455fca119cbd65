"""Checks that a sampler's arguments are of the kinds that its fields declare."""

from collections.abc import Callable
from dataclasses import fields
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

__all__ = ["check_fields"]

_WORDS = {int: "a whole number", float: "a number", bool: "True or False", NoneType: "None"}


def check_fields(sampler: Any) -> None:
    """Refuses a word for a number, a fraction for a count, and the like.

    Words that a field knows are left to the sampler, which can say what they mean.

    Arguments:
        sampler: A dataclass whose fields are numbers, booleans, words, rules or None.

    Raises:
        ValueError: If an argument is of another kind; it names the argument.
    """
    for field in fields(sampler):
        value, kinds = getattr(sampler, field.name), _kinds(field.type)
        if not any(_is(value, kind) for kind in kinds):
            wanted = " or ".join(_WORDS.get(kind, "a function") for kind in kinds)
            raise ValueError(f"{field.name} must be {wanted}, got {value!r}.")


def _kinds(declared: Any) -> tuple[Any, ...]:
    return get_args(declared) if get_origin(declared) in (Union, UnionType) else (declared,)


def _is(value: Any, kind: Any) -> bool:
    if kind in (int, float):
        # True is an Integral, but nobody means one step by it.
        return isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool)
    if get_origin(kind) is Callable:
        return callable(value)
    if get_origin(kind) is Literal:
        return isinstance(value, str)
    return isinstance(value, kind)
