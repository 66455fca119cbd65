r"""The main job: draws of the complete 12-lead ECG from whatever was measured of it.

A recording longer than the prior's window is drawn window by window, from left to right: the stretch that a window
shares with the one before is given to the sampler as observed, draw by draw. Each draw is thus one coherent ECG, its
spread at a seam is that of any other place, and memory does not grow with the duration. Shorter recordings lie at the
beginning of a window whose rest counts as lost.
"""

import tempfile
import time
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ecgdiff.ecg.leads import LEADS_12
from ecgdiff.ecg.quality import check
from ecgdiff.ecg.recording import Recording
from ecgdiff.ecg.windows import fade_in, plan
from ecgdiff.operators.base import Observation
from ecgdiff.operators.masks import Mask, RotatedMask
from ecgdiff.prepare import Noise, Prepared, prepare, restore
from ecgdiff.prior import Prior, load_prior
from ecgdiff.random import streams
from ecgdiff.reconstruction import Reconstruction
from ecgdiff.samplers import SAMPLERS
from ecgdiff.samplers.base import Progress, Sampler

__all__ = ["DEFAULT_SAMPLER", "Lost", "lose", "reconstruct"]

DEFAULT_SAMPLER = "surrogate"
OVERLAP_S = 2.0
# Standard deviation, in model units, with which a window must agree with the draw it continues.
SEAM_SIGMA = 0.05
# Draws larger than this live in a memory-mapped temporary file.
IN_MEMORY_BYTES = 256 * 2**20

Lost = Iterable[str | tuple[float, float]] | Mapping[str, Iterable[tuple[float, float]]]


def reconstruct(
    recording: Recording,
    *,
    lost: Lost = (),
    draws: int = 10,
    sampler: str | Sampler = DEFAULT_SAMPLER,
    seed: int = 0,
    noise: Noise = 0.02,
    prior: str | Path | Prior = "default",
    allow: Iterable[str] = (),
    batch_size: int = 16,
    progress: Progress | None = None,
) -> Reconstruction:
    """Draws complete 12-lead ECGs that agree with what was measured.

    Arguments:
        recording: Any of the twelve leads, at any rate, of 2.5 s to hours; NaN counts as lost.
        lost: What to treat as lost besides: lead names and (start, stop) in seconds for a block lost on all leads, or a
            mapping from lead names to such blocks.
        draws: How many ECGs to draw.
        sampler: A name of :data:`ecgdiff.samplers.SAMPLERS`, or a sampler with settings of your own.
        seed: The same seed gives the same draws, whatever their number or `batch_size`.
        noise: Standard deviation of the measurement noise in mV, one for all leads or by lead name.
        prior: A prior, its name, or a checkpoint folder.
        allow: Names of quality findings to override, see :func:`ecgdiff.ecg.quality.check`.
        batch_size: Draws computed at once; more needs more memory.
        progress: Called with the number of steps done and their total.

    Returns:
        The draws at the prior's rate, in mV, with the measured samples as measured.

    Raises:
        SignalQualityError: If the recording fails the quality gate.
        OperatorError: If its leads cannot be used.
        ValueError: If an argument makes no sense.
    """
    if draws < 1 or batch_size < 1:
        raise ValueError(f"draws and batch_size must be at least 1, got {draws}, {batch_size}.")
    began = time.perf_counter()
    recording = lose(recording, lost)
    report = check(recording)
    report.raise_for(allow=tuple(allow))
    prior = prior if isinstance(prior, Prior) else _cached_prior(str(prior))
    method = sampler if isinstance(sampler, Sampler) else _named_sampler(sampler)
    prepared = prepare(recording, prior.sampling_rate, noise)
    windows = plan(
        prepared.n_samples, prior.n_samples, round(OVERLAP_S * prior.sampling_rate)
    )
    out = _storage((draws, len(LEADS_12), prepared.n_samples))
    batches = [range(a, min(a + batch_size, draws)) for a in range(0, draws, batch_size)]
    told = _Counter(progress, len(batches) * len(windows))
    for batch in batches:
        _draw_all(prior, method, prepared, windows, batch, seed, out, told)
    nfe = method.nfe()
    meta = {
        "sampler": repr(method),
        "seed": seed,
        "noise_mv": dict(noise) if isinstance(noise, Mapping) else noise,
        "prior": prior.name,
        "model_sha256": prior.config.get("sha256", ""),
        "windows": len(windows),
        "network_calls_per_window": {"forward": nfe.forward, "vjp": nfe.vjp},
        "seconds": round(time.perf_counter() - began, 2),
        "clipped_samples": prepared.clipped,
        "band": prior.config.get("band", ""),
        "warnings": [f.message for f in report.findings],
    }
    return Reconstruction(
        draws=out,
        recording=recording,
        measured=prepared.measured,
        sampling_rate=prior.sampling_rate,
        provenance=prepared.provenance,
        meta=meta,
    )


def lose(recording: Recording, lost: Lost) -> Recording:
    """Returns the recording with leads or blocks set to "not measured"; see :func:`reconstruct`."""
    if isinstance(lost, Mapping):
        return recording.with_lost(lead_blocks=lost)
    items = [lost] if isinstance(lost, str) else list(lost)
    leads = [item for item in items if isinstance(item, str)]
    blocks = [item for item in items if not isinstance(item, str)]
    return recording.with_lost(leads=leads, blocks=blocks) if items else recording


def _draw_all(
    prior: Prior,
    method: Sampler,
    prepared: Prepared,
    windows: list[tuple[int, int]],
    batch: range,
    seed: int,
    out: NDArray[np.float32],
    told: "_Counter",
) -> None:
    """Draws one batch over all windows and writes it to `out`."""
    before: NDArray[np.float32] | None = None
    reached = 0
    for start, stop in windows:
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
        before, reached = current, stop


def _observe(
    prior: Prior,
    prepared: Prepared,
    start: int,
    stop: int,
    tail: NDArray[np.float32] | None,
    count: int,
) -> Observation:
    """The observation of one window in model units; `tail` holds the draws that it must continue."""
    shape = (1 if tail is None else count, len(prior.leads), prior.n_samples)
    y, mask = np.zeros(shape, np.float32), np.zeros(shape, bool)
    sigma = np.empty(shape[1:], np.float32)
    sigma[:] = prepared.sigma[:, stop - 1 : stop] / prior.scale
    length = stop - start
    limit = prior.config.get("clip_mv", np.inf)
    y[..., :length] = np.clip(prepared.values[:, start:stop], -limit, limit) / prior.scale
    mask[..., :length] = prepared.mask[:, start:stop]
    sigma[:, :length] = prepared.sigma[:, start:stop] / prior.scale
    if tail is not None:
        shared = tail.shape[-1]
        seen = mask[..., :shared]
        y[..., :shared] = np.where(seen, y[..., :shared], prepared.rotation @ tail)
        sigma[:, :shared] = np.where(seen[0], sigma[:, :shared], SEAM_SIGMA)
        mask[..., :shared] = True
    operator = Mask(torch.from_numpy(mask))
    if prepared.rotated:
        rotation = torch.from_numpy(prepared.rotation).float()
        operator = RotatedMask(torch.from_numpy(mask), rotation)
    noise = torch.from_numpy(_constant_rows(sigma))
    return Observation(torch.from_numpy(y), operator, noise)


def _constant_rows(sigma: NDArray[np.float32]) -> NDArray[np.float32]:
    """One column where the noise does not change with time, which samplers solve faster."""
    return sigma[:, :1] if np.array_equal(sigma, np.broadcast_to(sigma[:, :1], sigma.shape)) else sigma


def _storage(shape: tuple[int, int, int]) -> NDArray[np.float32]:
    if int(np.prod(shape)) * 4 <= IN_MEMORY_BYTES:
        return np.empty(shape, np.float32)
    # The file has no name of its own any more: it goes away with the last reference to the array.
    with tempfile.TemporaryFile(prefix="ecgdiff-") as file:
        return np.memmap(file, np.float32, "w+", shape=shape)


def _named_sampler(name: str) -> Sampler:
    if name not in SAMPLERS:
        raise ValueError(f"Unknown sampler {name!r}; there are {', '.join(sorted(SAMPLERS))}.")
    return SAMPLERS[name]()


@lru_cache(maxsize=2)
def _cached_prior(name: str) -> Prior:
    return load_prior(name)


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
