"""Scans several objects at a time, each in a process of its own; one that fails costs no other."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import Any

from scaffoldlab.errors import ScaffoldError
from scaffoldlab.scan.names import good_name
from scaffoldlab.scan.objects.object import ObjectSettings, scan_object


def scan_objects(
    sources: Mapping[str, Path],
    out: Path,
    settings: ObjectSettings,
    *,
    overwrite: bool = False,
    jobs: int = 2,
    on_done: Callable[[str], object] = lambda name: None,
) -> dict[str, dict[str, Any] | ScaffoldError]:
    """Makes the folder of each object, as :func:`~scaffoldlab.scan.objects.object.scan_object` does.

    Args:
        sources: Meshes, or out folders of BundleSDF, by the object's name.
        out: Folder of the objects' folders.
        settings: What all scans are told.
        overwrite: Whether folders that are there are replaced.
        jobs: Objects scanned at the same time.
        on_done: Called with the name of each object that is done, or has failed.

    Returns:
        The report of each object, or why there is none, in the order of ``sources``.
    """
    scan = partial(_scan, out=out, settings=settings, overwrite=overwrite)
    made: dict[str, dict[str, Any] | ScaffoldError] = {}
    # A process that is forked after Open3D has started its threads hangs.
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        running = {pool.submit(scan, name, source): name for name, source in sources.items()}
        for done in as_completed(running):
            name, failure = running[done], done.exception()  # also a process that was killed, for want of memory
            made[name] = done.result() if failure is None else ScaffoldError(f"{sources[name]}: {failure!r}.")
            on_done(name)
    return {name: made[name] for name in sources}


def name_sources(sources: Iterable[Path]) -> dict[str, Path]:
    """Each source by the name of its file or folder, made one that USD takes.

    Raises:
        ScaffoldError: Two have one name.
    """
    named: dict[str, Path] = {}
    for source in sources:
        whole = source.resolve()
        name = good_name(whole.name if whole.is_dir() else whole.stem)
        if name in named:
            raise ScaffoldError(
                f"scan objects: {named[name]} and {source} would both be {name!r}. Rename one, or scan it by itself "
                "with `scaffoldlab scan object --name`."
            )
        named[name] = source
    return named


def _scan(name: str, source: Path, *, out: Path, settings: ObjectSettings, overwrite: bool) -> Any:
    try:
        return scan_object(source, name, out / name, settings, overwrite=overwrite)
    except ScaffoldError as error:
        return error  # its words are for people; those of other exceptions are shown with their kind
