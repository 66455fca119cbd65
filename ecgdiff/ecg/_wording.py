"""How messages name arguments: in Python's words, and in the command line's."""

import json
import shlex

__all__ = ["argument", "capital"]


def capital(text: str) -> str:
    """The text with a capital first letter, as at the beginning of a sentence."""
    return text[:1].upper() + text[1:]


def argument(name: str, value: str | float | tuple[str, ...]) -> str:
    """Names an argument and the option that does the same: `units="mV" (--units mV)`."""
    option = f"--{name.replace('_', '-')}"
    if isinstance(value, (int, float)):
        return f"{name}={float(value)!r} ({option} {value:.9g})"
    words = (value,) if isinstance(value, str) else value
    shown = ", ".join(json.dumps(word, ensure_ascii=False) for word in words)
    if not isinstance(value, str):
        shown = f"({shown},)" if len(words) == 1 else f"({shown})"
    return f"{name}={shown} ({option} {' '.join(map(shlex.quote, words))})"
