"""Which statements are asked for: codes that the classifier knows, or which may have been meant.

An abbreviation that is no code is refused, not translated: RBBB may be a complete or an incomplete
block. The error says which codes it may stand for.
"""

from collections.abc import Iterable

from ecgdiff.classifier import Classifier

__all__ = ["asked_codes"]

# Usual abbreviations that are no codes of PTB-XL, and the codes that they may stand for.
_MEANT = {
    "RBBB": ("CRBBB", "IRBBB"),
    "LBBB": ("CLBBB", "ILBBB"),
    "AF": ("AFIB", "AFLT"),
    "AFL": ("AFLT",),
    "SB": ("SBRAD",),
    "ST": ("STACH", "STD_", "STE_"),
    "NSR": ("SR", "NORM"),
}


def asked_codes(conditions: Iterable[str] | str, classifier: Classifier) -> tuple[str, ...]:
    """Lists the codes asked for.

    Arguments:
        conditions: Codes, one code, or "all" that the classifier knows.
        classifier: The classifier.

    Raises:
        ValueError: If the classifier does not know one of them.
    """
    if isinstance(conditions, str):
        codes = classifier.classes if conditions == "all" else (conditions,)
    else:
        codes = tuple(conditions)
    if unknown := [code for code in codes if code not in classifier.classes]:
        raise ValueError(
            f"The classifier {classifier.name} knows no statement {unknown[0]!r}"
            f"{_hint(unknown[0], classifier)}; it knows {', '.join(classifier.classes)}."
        )
    return codes


def _hint(code: str, classifier: Classifier) -> str:
    """What may have been meant, in parentheses; nothing if nothing comes to mind."""
    wanted = str(code).upper()
    near = [known for known in classifier.classes if known.upper() == wanted]
    near += [known for known in _MEANT.get(wanted, ()) if known in classifier.classes]
    if not near:
        return ""
    said = [f"{classifier.names.get(known, known)} is {known}" for known in near]
    return f" ({', '.join(said)})"
