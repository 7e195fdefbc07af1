"""Writes files whole or not at all, so that a full disk or an interrupt never costs the old one."""

import contextlib
import errno
import json
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

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


def keep_settings(path: Path, settings: dict[str, Any]) -> None:
    """Writes down what a folder is made with; a run that goes on there must not change it.

    Args:
        path: JSON file of the settings.
        settings: JSON values by name.

    Raises:
        ScaffoldError: The file holds another value.
    """
    before = json.loads(path.read_text()) if path.is_file() else settings
    for name, value in settings.items():
        if before.get(name) != value:
            raise ScaffoldError(
                f"{path}: what is here was made with {name} = {before.get(name)}; got {value}. Go on with the same "
                "settings, or give another folder (--out)."
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
