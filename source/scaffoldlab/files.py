"""Writes files whole or not at all, so that a full disk or an interrupt never costs the old one; reads matrices."""

import contextlib
import errno
import os
import re
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

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
        raise ScaffoldError(
            f"{path}: could not be written ({error.strerror or error}); what was there before is unchanged. "
            f"{what_next(error)}, or write to another folder."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    with contextlib.suppress(OSError):  # the rename itself reaches the disk; not every system can
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


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
