"""What a user wants treated as lost: leads, blocks of time, or blocks of single leads."""

from collections.abc import Iterable, Mapping, Sequence

from ecgdiff.ecg.recording import Recording

__all__ = ["Lost", "lose"]

Block = tuple[float, float]
Lost = Iterable[str | Block | tuple[str, float, float]] | Mapping[str, Iterable[Block]]


def lose(recording: Recording, lost: Lost) -> Recording:
    """Returns the recording with leads or blocks set to "not measured", that is NaN.

    Arguments:
        recording: The recording.
        lost: Lead names, (start, stop) in seconds for a block lost on all leads, and (lead, start,
            stop) for one lost on a lead; or a mapping from lead names to blocks lost on that lead.

    Raises:
        ValueError: If `lost` is none of these, or names what the recording does not have.
    """
    try:
        if isinstance(lost, Mapping):
            pairs = {lead: [_block(b) for b in blocks] for lead, blocks in lost.items()}
            return recording.with_lost(lead_blocks=pairs)
        leads: list[str] = []
        blocks: list[Block] = []
        of_leads: dict[str, list[Block]] = {}
        for item in [lost] if isinstance(lost, str) else lost:
            if isinstance(item, str):
                leads.append(item)
            elif len(item) == 3 and isinstance(item[0], str):
                of_leads.setdefault(item[0], []).append(_block(item[1:]))
            else:
                blocks.append(_block(item))
    except TypeError as error:
        raise ValueError(
            "lost takes lead names, (start, stop) and (lead, start, stop) in seconds, as in "
            "['V1', (3.0, 5.5), ('V2', 1.0, 2.0)], or a mapping such as {'V1': [(3.0, 5.5)]}; "
            f"got {lost!r}."
        ) from error
    anything = leads or blocks or of_leads
    return recording.with_lost(leads, blocks, of_leads) if anything else recording


def _block(item: object) -> Block:
    if not (isinstance(item, Sequence) and len(item) == 2) or isinstance(item[0], str):
        raise TypeError(f"{item!r} is no block")
    return float(item[0]), float(item[1])
