"""A real recording to try the package on: record 00009 of PTB-XL 1.0.3 (fold 10), CC BY 4.0.

Chosen by rule, not by looks: the first record of fold 10 labeled normal sinus rhythm that passes
the quality gate without a remark. Shipped are its twelve leads (WFDB, 100 Hz) and its lead I in
the layout of a watch's export.

References:
    | PTB-XL, a large publicly available electrocardiography dataset 1.0.3 (Wagner et al., 2022),
      doi:10.13026/kfzx-aw45
"""

from contextlib import AbstractContextManager
from importlib.resources import as_file, files
from pathlib import Path

from ecgdiff.ecg.recording import Recording

__all__ = ["load_truth", "watch_csv"]


def watch_csv() -> AbstractContextManager[Path]:
    """Gives the path of lead I as a watch would export it, for a `with` block."""
    return as_file(files("ecgdiff.demo") / "lead_I_watch.csv")


def load_truth() -> Recording:
    """Reads the twelve leads that were really measured."""
    from ecgdiff.ecg.io import read

    with as_file(files("ecgdiff.demo")) as folder:
        return read(folder / "record.hea")
