"""The objects' files that a scene refers to: found, named, and matched with what a capture shows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from scaffoldlab.errors import ScaffoldError, unknown_name
from scaffoldlab.scan.names import refuse_name
from scaffoldlab.scan.scenes.files import RESERVED
from scaffoldlab.specs.paths import roots

SUFFIXES = (".usda", ".usd", ".usdc")


@dataclass(frozen=True)
class ObjectFile:
    """An object that scenes can refer to.

    Attributes:
        name: Its name.
        path: Its USD file.
        usd: The file as scene files name it, below an assets/ folder.
        kind: ``rigid`` if its default prim is a rigid body.
    """

    name: str
    path: Path
    usd: str
    kind: Literal["rigid", "static"]


def find_objects(paths: Sequence[Path]) -> dict[str, ObjectFile]:
    """Objects by name, from files or from folders that hold ``NAME/NAME.usda``.

    Raises:
        ScaffoldError: A path leads to no such file, it is below no assets/ folder, its name is none that USD takes, or
            two have one name.
    """
    found: dict[str, ObjectFile] = {}
    for path in paths:
        file = _usd_file(path)
        refuse_name(file.stem, f"--objects {path}: the name")
        if file.stem in found:
            raise ScaffoldError(f"--objects: {file.stem!r} is both {found[file.stem].path} and {file}. Give one.")
        found[file.stem] = ObjectFile(file.stem, file, _below_assets(file), _kind(file))
    return found


def refuse_unknown(
    folder: Path, shown: Sequence[str], objects: Mapping[str, ObjectFile], without: Sequence[str]
) -> dict[str, ObjectFile]:
    """The files of the objects that a capture shows.

    Raises:
        ScaffoldError: The capture shows an object that there is no file of, or none at all.
    """
    for name in without:
        if name not in shown:
            raise unknown_name("object", name, shown, "--without")
    wanted = [name for name in shown if name not in without]
    for name in wanted:
        if name not in objects:
            error = unknown_name("object", name, objects, str(folder))
            raise ScaffoldError(
                f"{error} The capture has masks or poses of it: make it with `scaffoldlab scan object` and add it to "
                f"--objects, or leave it out with --without {name}."
            )
        if name in RESERVED:
            raise ScaffoldError(f"{folder}: an object cannot be called {name!r} in a scene. Rename its folders.")
    return {name: objects[name] for name in wanted}


def _usd_file(path: Path) -> Path:
    """The USD file that a path means."""
    if path.is_dir():
        candidates = [path / f"{path.resolve().name}{suffix}" for suffix in SUFFIXES]
    else:
        candidates = [path] if path.suffix in SUFFIXES else []
    for file in candidates:
        if file.is_file():
            return file.resolve()
    raise ScaffoldError(
        f"--objects {path}: no object; allowed: a USD file, or a folder NAME that holds NAME.usda. Make one with "
        "`scaffoldlab scan object`."
    )


def _below_assets(file: Path) -> str:
    """The path of a file below the assets/ folder of a root."""
    for root in roots():
        assets = (root / "assets").resolve()
        if file.is_relative_to(assets):
            return file.relative_to(assets).as_posix()
    searched = ", ".join(str(root / "assets") for root in roots())
    raise ScaffoldError(
        f"--objects {file}: scenes find their files below {searched} only. Move the object there, or add the folder "
        "above its assets/ to SCAFFOLDLAB_PATH."
    )


def _kind(file: Path) -> Literal["rigid", "static"]:
    from scaffoldlab.usd.reader import is_rigid, joints, visual_parts

    if joints(file):
        raise ScaffoldError(f"--objects {file}: an articulation; allowed: an object without joints. Leave it out.")
    if not visual_parts(file):
        raise ScaffoldError(f"--objects {file}: no visible mesh; poses and overlay need one. Make the object again.")
    return "rigid" if is_rigid(file) else "static"
