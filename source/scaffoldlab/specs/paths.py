"""Where task, scene, robot and object folders are found."""

import os
from pathlib import Path

from scaffoldlab.errors import ScaffoldError, unknown_name

ROOT = Path(__file__).resolve().parents[3]


def roots() -> list[Path]:
    """The project, then every folder of SCAFFOLDLAB_PATH, each with the same layout (tasks/, assets/)."""
    extra = os.environ.get("SCAFFOLDLAB_PATH", "")
    return [ROOT, *(Path(p).expanduser() for p in extra.split(os.pathsep) if p)]


def find_asset(relative: str, where: str) -> Path:
    """Path of a file below an ``assets/`` folder, e.g. ``objects/apple/apple.usda``.

    Raises:
        ScaffoldError: No root has it.
    """
    for root in roots():
        path = root / "assets" / relative
        if path.is_file():
            return path
    searched = ", ".join(str(root / "assets") for root in roots())
    raise ScaffoldError(
        f"{where}: no asset {relative!r} (searched {searched}). "
        "Build it with `scripts/run python scripts/build_assets.py`, or correct the path."
    )


def find_named(kind: str, name: str, where: str = "") -> Path:
    """The YAML file of a named ``task``, ``scene`` or ``robot``.

    Raises:
        ScaffoldError: Unknown name, with the nearest known one.
    """
    files = list_named(kind)
    if name not in files:
        raise unknown_name(kind, name, files, where)
    return files[name]


def list_named(kind: str) -> dict[str, Path]:
    """Every YAML file of a kind by folder name."""
    folder = {"task": "tasks", "scene": "assets/scenes", "robot": "assets/robots"}[kind]
    found: dict[str, Path] = {}
    for root in roots():
        for path in sorted((root / folder).glob(f"*/{kind}.yaml")):
            found.setdefault(path.parent.name, path)
    return found
