"""Writes files whole or not at all, so that a full disk or an interrupt never costs the old one; reads matrices."""

import contextlib
import errno
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from scaffoldlab.errors import ScaffoldError

DISK_ERRORS = {
    errno.ENOSPC: "Free space on that disk",
    errno.EDQUOT: "Free space in your quota",
    errno.EACCES: "Make the folder writable",
    errno.EPERM: "Make the folder writable",
    errno.EROFS: "That disk is read-only",
}
"""What to do about each error of a disk."""


def what_next(error: OSError) -> str:
    """What to do about an error of the file system."""
    return DISK_ERRORS.get(error.errno or 0, "Check the path")


def _not_written(path: str | os.PathLike[str], error: OSError) -> ScaffoldError:
    return ScaffoldError(
        f"{path}: could not be written ({error.strerror or error}); what was there before is unchanged. "
        f"{what_next(error)}, or write to another folder."
    )


def cache_folder() -> Path:
    """Where results are kept between commands: below XDG_CACHE_HOME, else ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "scaffoldlab"


def keep_settings(path: Path, settings: dict[str, Any]) -> None:
    """Writes down what a folder is made with; a run that goes on there must not change it.

    An earlier version may not have noted a setting: it must be None, False, 1 or empty then.

    Args:
        path: JSON file of the settings.
        settings: JSON values by name.

    Raises:
        ScaffoldError: The file holds another value.
    """
    before = json.loads(path.read_text()) if path.is_file() else settings
    for name, value in settings.items():
        known = name in before
        if before[name] != value if known else value is True or value not in (None, False, 1, []):
            made = f"with {name} = {before[name]}" if known else f"by a version that did not note {name}"
            raise ScaffoldError(
                f"{path}: what is here was made {made}; got {value}. Go on with the same settings, or give "
                "another folder (--out)."
            )
    write_atomic(path, json.dumps(settings, indent=1) + "\n")


def write_atomic(path: str | os.PathLike[str], data: bytes | str | Callable[[BinaryIO], object]) -> None:
    """Writes a file so that at every moment, also after a crash, the path holds the old or the new content.

    Args:
        path: File to write; missing folders above it are made, a symbolic link stays one.
        data: The content, text as UTF-8, or a function that writes it to the open binary file it is given.

    Raises:
        ScaffoldError: The file cannot be written. The old one is unchanged and nothing else is left behind.
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{secrets.token_hex(8)}.tmp")  # same folder: a rename is atomic on one disk only
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            if callable(data):
                data(file)
            else:
                file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError as error:
        raise _not_written(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    with contextlib.suppress(OSError):  # the rename itself reaches the disk; not every system can
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextlib.contextmanager
def write_folder(path: str | os.PathLike[str], *, overwrite: bool = False) -> Iterator[Path]:
    """A folder to fill that takes the place of ``path`` when the block ends, and vanishes if the block fails.

    Args:
        path: Folder to write; missing ones above it are made.
        overwrite: Whether a folder that is there already is replaced, at the end and with all that is in it.

    Raises:
        ScaffoldError: There is a folder or a file already, or the disk is full. Nothing is left behind.
    """
    target = Path(os.path.realpath(path))
    refuse_existing(target, overwrite=overwrite)
    token = secrets.token_hex(8)
    temporary, old = (target.with_name(f".{token}.{end}") for end in ("tmp", "old"))
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if target.exists():
            os.replace(target, old)
        os.replace(temporary, target)
    except OSError as error:
        raise _not_written(path, error) from error
    finally:
        if old.exists() and not target.exists():  # stopped between the two
            os.replace(old, target)
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def refuse_existing(path: Path, *, overwrite: bool) -> None:
    """Stops before work whose result could not be written in the end.

    Raises:
        ScaffoldError: The path is taken and may not be overwritten, or is a file.
    """
    if path.is_dir() and (overwrite or not any(path.iterdir())):
        return
    if path.exists():
        what = "a folder with files" if path.is_dir() else "a file"
        raise ScaffoldError(f"{path}: there is {what} already. Choose another --out, or replace it with --overwrite.")


def read_matrix(path: Path, shape: tuple[int, int], meaning: str) -> np.ndarray:
    """A matrix of numbers with white space between them, as ``numpy.savetxt`` writes it.

    Args:
        path: Text file.
        shape: Its rows and columns.
        meaning: What the matrix is, for messages, e.g. ``"the camera's intrinsics"``.

    Raises:
        ScaffoldError: The file is missing, or holds something else. Numbers that are not finite are let through.
    """
    try:
        return np.array(path.read_text().split(), float).reshape(shape)
    except OSError:
        raise ScaffoldError(f"{path}: missing. Write {meaning} there, as {shape[0]} x {shape[1]} numbers.") from None
    except ValueError:
        raise ScaffoldError(f"{path}: allowed: {shape[0]} x {shape[1]} numbers, {meaning}.") from None


def by_number(name: str) -> list[int | str]:
    """Sorts ``9.txt`` before ``10.txt``."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]
