r"""Draws of recordings of any length, window by window.

A recording longer than the prior's window is drawn from left to right: the stretch that a window
shares with the one before is given to the sampler as observed, draw by draw, so each draw is one
coherent ECG. Gaps are drawn with the evidence on both of their sides where they fit into a window
(:mod:`ecgdiff.ecg.windows`); what a lead shows more than a window later is not looked at. The
working memory does not grow with the duration, and large results go to disk. Recordings shorter
than a window lie at its beginning and the rest counts as lost.
"""

import tempfile

import numpy as np
import torch
from numpy.typing import NDArray

from ecgdiff.ecg.leads import LEADS_12
from ecgdiff.ecg.windows import Window, fade_in, plan
from ecgdiff.operators.base import LinearOperator, Observation
from ecgdiff.operators.masks import Mask, RotatedMask
from ecgdiff.prepare import Prepared, restore
from ecgdiff.prior import Prior
from ecgdiff.random import streams
from ecgdiff.samplers.base import Progress, Sampler

__all__ = ["draw_windows", "windows_of"]

CARRY_S = 1.75
EDGE_S = 0.25
SIGHT_S = 1.5
# Standard deviation, in model units, with which a window must agree with the draw it continues.
SEAM_SIGMA = 0.05
# Draws larger than this live in a memory-mapped temporary file.
IN_MEMORY_BYTES = 256 * 2**20


def windows_of(prior: Prior, prepared: Prepared) -> list[Window]:
    """Plans the windows of a recording, at the prior's rate."""
    carry, edge, sight = (round(s * prior.sampling_rate) for s in (CARRY_S, EDGE_S, SIGHT_S))
    return plan(prepared.usable, prior.n_samples, carry=carry, edge=edge, sight=sight)


def draw_windows(
    prior: Prior,
    method: Sampler,
    prepared: Prepared,
    *,
    draws: int,
    seed: int | str,
    batch_size: int,
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """Draws the twelve leads in mV, shape (draws, 12, time); large results are memory maps.

    Arguments:
        prior: The prior.
        method: The posterior sampler.
        prepared: What was measured.
        draws: How many ECGs to draw.
        seed: Draw number k depends on it, on k and on nothing else.
        batch_size: Draws computed at once.
        progress: Called with the number of steps done and their total.
    """
    windows = windows_of(prior, prepared)
    out = _storage((draws, len(LEADS_12), prepared.n_samples))
    batches = [range(a, min(a + batch_size, draws)) for a in range(0, draws, batch_size)]
    told = _Counter(progress, len(batches) * len(windows))
    for batch in batches:
        _draw_all(prior, method, prepared, windows, batch, seed, out, told)
    return out


def _draw_all(
    prior: Prior,
    method: Sampler,
    prepared: Prepared,
    windows: list[Window],
    batch: range,
    seed: int | str,
    out: NDArray[np.float32],
    told: "_Counter",
) -> None:
    """Draws one batch over all windows and writes it to `out`."""
    before: NDArray[np.float32] | None = None
    reached = 0
    for start, stop, keep in windows:
        shared = reached - start if before is not None else 0
        tail = None if before is None else before[..., before.shape[-1] - shared :]
        observation = _observe(prior, prepared, start, stop, tail, len(batch))
        shape = (len(batch), len(prior.leads), prior.n_samples)
        generator = streams(seed, f"window-{start}", batch)
        model = method(
            prior.denoiser, observation, shape, generator=generator, progress=told.window()
        )
        current = model[..., : stop - start].numpy()
        if tail is not None:
            ramp = fade_in(shared).astype(np.float32)
            current[..., :shared] = (1 - ramp) * tail + ramp * current[..., :shared]
        out[batch.start : batch.stop, :, start:stop] = restore(
            prior.scale * current, prepared, start
        )
        before, reached = current[..., : keep - start], keep


def _observe(
    prior: Prior,
    prepared: Prepared,
    start: int,
    stop: int,
    tail: NDArray[np.float32] | None,
    count: int,
) -> Observation:
    """The observation of a window in model units; `tail` holds the draws it must continue."""
    shape = (1 if tail is None else count, len(prior.leads), prior.n_samples)
    y, mask = np.zeros(shape, np.float32), np.zeros(shape, bool)
    sigma = np.empty(shape[1:], np.float32)
    sigma[:] = prepared.sigma[:, stop - 1 : stop] / prior.scale
    length = stop - start
    limit = prior.config.get("clip_mv", np.inf)
    values = np.where(prepared.usable[:, start:stop], prepared.values[:, start:stop], 0.0)
    y[..., :length] = np.clip(values, -limit, limit) / prior.scale
    mask[..., :length] = prepared.usable[:, start:stop]
    sigma[:, :length] = prepared.sigma[:, start:stop] / prior.scale
    if tail is not None:
        shared = tail.shape[-1]
        seen = mask[..., :shared]
        y[..., :shared] = np.where(seen, y[..., :shared], prepared.rotation @ tail)
        sigma[:, :shared] = np.where(seen[0], sigma[:, :shared], SEAM_SIGMA)
        mask[..., :shared] = True
    operator: LinearOperator = Mask(torch.from_numpy(mask))
    if prepared.rotated:
        rotation = torch.from_numpy(prepared.rotation).float()
        operator = RotatedMask(torch.from_numpy(mask), rotation)
    noise = torch.from_numpy(_constant_rows(sigma))
    return Observation(torch.from_numpy(y), operator, noise)


def _constant_rows(sigma: NDArray[np.float32]) -> NDArray[np.float32]:
    """One column where the noise does not change with time, which samplers solve faster."""
    return (
        sigma[:, :1]
        if np.array_equal(sigma, np.broadcast_to(sigma[:, :1], sigma.shape))
        else sigma
    )


def _storage(shape: tuple[int, int, int]) -> NDArray[np.float32]:
    if int(np.prod(shape)) * 4 <= IN_MEMORY_BYTES:
        return np.empty(shape, np.float32)
    # The file has no name of its own any more: it goes away with the last reference to the array.
    with tempfile.TemporaryFile(prefix="ecgdiff-") as file:
        return np.memmap(file, np.float32, "w+", shape=shape)


class _Counter:
    """Adds up the progress of windows and batches."""

    def __init__(self, progress: Progress | None, runs: int) -> None:
        self.progress, self.runs, self.finished = progress, runs, 0

    def window(self) -> Progress | None:
        """The callback for the next sampler run."""
        if self.progress is None:
            return None
        report, offset = self.progress, self.finished
        self.finished += 1
        return lambda done, total: report(offset * total + done, self.runs * total)
