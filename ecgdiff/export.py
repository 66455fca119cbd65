"""What a reconstruction leaves on disk: a figure, draws to work on, a record for other software.

Every file says that it is synthetic, by what method, from which weights and with which seed.
"""

import json
import re
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from ecgdiff.ecg.io import write_wfdb
from ecgdiff.ecg.recording import Recording
from ecgdiff.plot.plotly import NOTICE
from ecgdiff.reconstruction import Reconstruction

__all__ = ["check_plotting", "export", "export_paths"]


def export_paths(folder: str | Path, stem: str) -> dict[str, Path]:
    """Names the files that :func:`export` writes: figure, draws, median (header and samples)."""
    folder = Path(folder)
    # WFDB record names hold letters, digits, hyphens and underscores only.
    stem = re.sub(r"[^A-Za-z0-9_-]+", "_", stem)
    return {
        "figure": folder / f"{stem}.html",
        "draws": folder / f"{stem}_draws.npz",
        "median": folder / f"{stem}_median.hea",
        "median samples": folder / f"{stem}_median.dat",
    }


def export(
    result: Reconstruction,
    folder: str | Path,
    stem: str,
    *,
    truth: Recording | None = None,
    start: float = 0.0,
) -> dict[str, Path]:
    """Writes the figure (HTML), the draws (NPZ) and the median reconstruction (WFDB).

    Arguments:
        result: The reconstruction.
        folder: Where to; made if absent.
        stem: First part of the file names.
        truth: The true 12 leads, drawn behind the reconstruction.
        start: The second at which the figure's page of 10 s begins.

    Returns:
        The files written, by what they hold.
    """
    from ecgdiff import plot

    paths = export_paths(folder, stem)
    Path(folder).mkdir(parents=True, exist_ok=True)
    write_draws(result, paths["draws"])
    figure = plot.ecg(result, truth=truth, title=stem, start=start)
    plot.write_html(figure, paths["figure"], title=stem)
    write_wfdb(result.to_recording("median"), paths["median"], comments=_comments(result))
    return paths


def check_plotting() -> None:
    """Raises ImportError, with what to install, if figures cannot be drawn."""
    if find_spec("plotly") is None:
        raise ImportError("Figures need plotly: pip install 'ecgdiff[plot]'.")


def write_draws(result: Reconstruction, path: Path) -> None:
    """Writes `draws` (draws, 12, time) in mV and what explains them, without pickles."""
    np.savez(
        path,
        draws=result.draws,
        measured=result.measured,
        leads=np.array(result.leads),
        provenance=np.array(result.provenance),
        sampling_rate=np.array(result.sampling_rate),
        units=np.array("mV"),
        meta=np.array(json.dumps({**result.meta, "notice": NOTICE})),
    )


def _comments(result: Reconstruction) -> list[str]:
    meta = result.meta
    return [
        "pointwise median of draws by ecgdiff - NOT ACQUIRED",
        f"method: {meta['sampler']}",
        f"prior: {meta['prior']}",
        f"model sha256: {meta['model_sha256']}",
        f"seed: {meta['seed']}, draws: {len(result.draws)}",
        NOTICE,
    ]
