"""Zip archives made by others: opened only if they are no bombs, not encrypted, and lead nowhere else."""

import math
import zipfile
from pathlib import Path, PurePosixPath

from scaffoldlab.errors import ScaffoldError

type AnyPath = Path | zipfile.Path
"""A file or folder on disk or in an archive."""


def open_archive(path: Path, kind: str, *, most_bytes: float = math.inf) -> zipfile.ZipFile:
    """Opens an archive of files that are compressed already or not at all: it unpacks to about its own size.

    Args:
        path: The archive.
        kind: What it should be, for messages.
        most_bytes: Largest size when unpacked.

    Raises:
        ScaffoldError: It is none or cut off, unpacks to far more than it holds, is encrypted, or names a way out.
    """
    # Besides BadZipFile, zipfile raises ValueError for offsets out of the file, and NotImplementedError for an archive
    # in several volumes or of a later version of the format: to a user, all of them are a file to export again.
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
        raise ScaffoldError(f"{path}: no {kind}, or cut off ({error}). Export or copy it again.") from error
    size, total = path.stat().st_size, sum(entry.file_size for entry in archive.infolist())
    if total > min(max(2 * size, 1 << 20), most_bytes):
        raise ScaffoldError(
            f"{path}: its {size} bytes unpack to {total}; allowed: about as many, since a {kind} is not compressed any "
            "further. Refused."
        )
    for entry in archive.infolist():
        name = PurePosixPath(entry.filename.replace("\\", "/"))
        if name.is_absolute() or ".." in name.parts:
            raise ScaffoldError(f"{path}: it holds {entry.filename!r}, a path that leaves its folder. Refused.")
        if entry.flag_bits & 1 or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ScaffoldError(
                f"{path}: {entry.filename!r} is encrypted or compressed in another way; allowed: stored or deflated, "
                "without a password. Pack it again."
            )
    return archive
