"""What a user wants treated as lost: leads, blocks of time, or blocks of single leads."""

from collections.abc import Iterable, Mapping, Sequence

from ecgdiff.ecg.recording import Recording

__all__ = ["Lost", "lose"]

Lost = Iterable[str | tuple[float, float]] | Mapping[str, Iterable[tuple[float, float]]]


def lose(recording: Recording, lost: Lost) -> Recording:
    """Returns the recording with leads or blocks set to "not measured", that is NaN.

    Arguments:
        recording: The recording.
        lost: Lead names, and (start, stop) in seconds for a block lost on all leads; or a mapping
            from lead names to blocks lost on that lead.

    Raises:
        ValueError: If `lost` is none of these, or names what the recording does not have.
    """
    try:
        if isinstance(lost, Mapping):
            pairs = {lead: [_block(b) for b in blocks] for lead, blocks in lost.items()}
            return recording.with_lost(lead_blocks=pairs)
        items = [lost] if isinstance(lost, str) else list(lost)
        leads = [item for item in items if isinstance(item, str)]
        stretches = [_block(item) for item in items if not isinstance(item, str)]
    except TypeError as error:
        raise ValueError(
            "lost takes lead names and (start, stop) in seconds, as in ['V1', (3.0, 5.5)], or "
            f"{{'V1': [(3.0, 5.5)]}}; got {lost!r}."
        ) from error
    return recording.with_lost(leads=leads, blocks=stretches) if items else recording


def _block(item: object) -> tuple[float, float]:
    if not (isinstance(item, Sequence) and len(item) == 2) or isinstance(item[0], str):
        raise TypeError(f"{item!r} is no block")
    return float(item[0]), float(item[1])
