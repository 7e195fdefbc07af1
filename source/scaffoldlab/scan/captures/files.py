"""The files of a capture, found by their stems, and what a layout of them has to tell."""

from dataclasses import dataclass
from pathlib import Path

from scaffoldlab.errors import ScaffoldError
from scaffoldlab.files import by_number
from scaffoldlab.scan.archives import AnyPath
from scaffoldlab.scan.captures.frame import Frame

PICTURES = (".png", ".jpg", ".jpeg")
DEPTHS = (".png", ".npy", ".exr")


@dataclass
class Layout:
    """What was found in a folder.

    Attributes:
        name: What kind of folder it is, in words.
        frames: The pictures, with a preliminary depth unit.
        posed: Whether every camera's pose is known.
        depth_kind: ``u`` if the depth is whole numbers, ``f`` for floats.
        depth_unit: Metres per unit of depth where the layout fixes it.
    """

    name: str
    frames: list[Frame]
    posed: bool
    depth_kind: str
    depth_unit: float | None = None


def files_of[P: AnyPath](folder: P, root: P, suffixes: tuple[str, ...]) -> dict[str, P]:
    """Files of a folder by their stem, in the order of their numbers; hidden ones and other kinds are passed over.

    Raises:
        ScaffoldError: A link leads out of the root, or two files have one stem.
    """
    found: dict[str, P] = {}
    if not folder.is_dir():
        return found
    refuse_leaving(folder, root)
    for path in sorted(folder.iterdir(), key=lambda p: by_number(p.name)):
        if path.name.startswith(".") or path.suffix.lower() not in suffixes or path.is_dir():
            continue
        if path.is_symlink():
            refuse_leaving(path, root)
        if path.stem in found:
            raise ScaffoldError(f"{folder}: both {found[path.stem].name} and {path.name}; allowed: one file per stem.")
        found[path.stem] = path
    return found


def refuse_leaving(path: AnyPath, root: AnyPath) -> None:
    """Refuses a link that leads out of the capture.

    Raises:
        ScaffoldError: It does.
    """
    if not (isinstance(path, Path) and isinstance(root, Path)):
        return  # an archive has no links
    if not path.resolve().is_relative_to(root.resolve()):
        raise ScaffoldError(f"{path}: is a link to {path.resolve()}, outside of the capture. Copy the files into it.")


def same_stems(folder: Path, files: dict[str, dict[str, Path]]) -> None:
    """Refuses groups of files, by the name of their folder, whose stems differ, or that are empty.

    Raises:
        ScaffoldError: They do.
    """
    (first, wanted), *others = files.items()
    for name, got in others:
        if not got or not wanted:
            empty = name if not got else first
            raise ScaffoldError(
                f"{folder / empty}: no frames. Put the images there, {first}/ and {name}/ with the same stems."
            )
        for where, lacking in ((name, sorted(wanted.keys() - got.keys(), key=by_number)),
                               (first, sorted(got.keys() - wanted.keys(), key=by_number))):  # fmt: skip
            if lacking:
                raise ScaffoldError(
                    f"{folder / where}: {len(lacking)} of {len(wanted.keys() | got.keys())} stems are missing, e.g. "
                    f"{lacking[0]}; allowed: the same stems in {first}/ and {name}/. Rename the files, or delete "
                    "those without a counterpart."
                )
