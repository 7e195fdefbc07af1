"""Keeps the fused background of a capture, so that an interrupted scan goes on after its longest step."""

import contextlib
import hashlib
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from scaffoldlab.errors import ScaffoldError
from scaffoldlab.files import cache_folder, write_atomic
from scaffoldlab.scan.scenes.background import Background

KEPT = 8
"""Backgrounds that are kept; the oldest go first."""
FIELDS = ("points", "normals", "colors", "faces")


def cached(folder: Path, settings: dict[str, Any], make: Callable[[], Background]) -> tuple[Background, bool]:
    """The background of a capture as it is on disk now, made anew or as it was made before, and whether it was.

    Args:
        folder: The capture, a folder or an archive; its files count by name, size and time of change.
        settings: All else that the result depends on, as JSON values.
        make: Makes it.
    """
    path = cache_folder() / "scan" / f"background-{_digest(folder, settings)}.npz"
    with contextlib.suppress(OSError, ValueError, KeyError, zipfile.BadZipFile), np.load(path) as file:
        os.utime(path)
        return Background(*(file[field] for field in FIELDS)), True
    background = make()
    with contextlib.suppress(ScaffoldError, OSError):  # without a place to keep it, the scan goes on
        write_atomic(path, lambda file: np.savez(file, **{f: getattr(background, f) for f in FIELDS}))
        for old in sorted(path.parent.glob("background-*.npz"), key=lambda p: -p.stat().st_mtime)[KEPT:]:
            old.unlink()
    return background, False


def _digest(folder: Path, settings: dict[str, Any]) -> str:
    files = [folder] if folder.is_file() else sorted(path for path in folder.rglob("*") if path.is_file())
    known = [(str(p.relative_to(folder)), p.stat().st_size, p.stat().st_mtime_ns) for p in files]
    return hashlib.sha256(json.dumps([known, settings], sort_keys=True).encode()).hexdigest()[:32]
