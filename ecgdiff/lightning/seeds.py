"""The seed of a step: every random number of a step follows from it."""

__all__ = ["step_seed"]


def step_seed(seed: int, step: int, rank: int) -> int:
    """Gives a step of one process a seed of its own; there may be 1009 processes."""
    return (seed * 1_000_003 + step) * 1009 + rank
