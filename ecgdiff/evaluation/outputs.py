"""Where results go: asked before anything is computed, so that no work is lost on a typing error.

Nothing is made yet: a command that is refused for another reason leaves no empty folder.
"""

import os
from pathlib import Path

from ecgdiff.errors import DataError

__all__ = ["check_file", "check_folder", "told"]


def check_file(path: str | Path) -> None:
    """Checks that a file can be written.

    Raises:
        DataError: If its folder does not exist or cannot be written to, or it is a folder itself.
    """
    path = Path(path)
    folder = path.absolute().parent
    if path.is_dir():
        raise DataError(f"{path} is a folder; name a file in it, such as {path / 'results'}.")
    if not folder.is_dir():
        raise DataError(
            f"{path} cannot be written: there is no folder {folder}. Make it, or write elsewhere."
        )
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise DataError(f"{path} cannot be written: permission denied. Write elsewhere.")


def check_folder(path: str | Path) -> None:
    """Checks that a folder can be written to, or made.

    Raises:
        DataError: If it is a file, lies in one, or neither it nor what it lies in can be written.
    """
    whole = Path(path).absolute()
    there = next(place for place in (whole, *whole.parents) if place.exists())
    if not there.is_dir():
        what = "is" if there == whole else f"lies in {there}, which is"
        raise DataError(f"{path} {what} a file; give a folder for the results.")
    if not os.access(there, os.W_OK):
        raise DataError(
            f"{path} cannot be written: permission denied in {there}. Choose another folder."
        )


def told(path: str | Path) -> str:
    """A place as the command of a result names it: of an absolute one only its last name.

    Results are passed on, and where a user keeps them is nobody else's business.
    """
    return Path(path).name if Path(path).is_absolute() else str(path)
