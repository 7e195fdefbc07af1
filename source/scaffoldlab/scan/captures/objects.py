"""Masks and poses of objects that lie beside the pictures of a capture, found by the stems of its frames."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from scaffoldlab.errors import ScaffoldError
from scaffoldlab.files import read_matrix
from scaffoldlab.scan.archives import AnyPath
from scaffoldlab.scan.captures.files import PICTURES, files_of


def object_masks(folder: Path, root: Path, rgb: Mapping[str, AnyPath]) -> dict[str, dict[str, Path]]:
    """Masks of each object by the stems of their frames.

    Args:
        folder: Holds masks of the one object, or a folder of masks for each; it may be missing.
        root: No link may lead out of this folder.
        rgb: The pictures by stem.

    Raises:
        ScaffoldError: There are both, or masks of no frame.
    """
    flat = files_of(folder, root, PICTURES)
    nested = {}
    for place in sorted(folder.iterdir()) if folder.is_dir() else ():
        if place.is_dir() and not place.name.startswith("."):
            nested[place.name] = files_of(place, root, PICTURES)
    if flat and nested:
        raise ScaffoldError(
            f"{folder}: images and the folders {', '.join(nested)} side by side; allowed: images of one object, or "
            "one folder per object. Move the images into a folder with the object's name."
        )
    found = {"object": flat} if flat else nested
    for name, files in found.items():
        if not files.keys() & rgb.keys():
            place = folder if flat else folder / name
            raise ScaffoldError(
                f"{place}: {len(files)} masks, none with the stem of a frame such as {next(iter(rgb))}. Rename them."
            )
    return found


def object_poses(
    folder: Path, root: Path, rgb: Mapping[str, AnyPath], masks: Mapping[str, object]
) -> dict[str, dict[str, np.ndarray]]:
    """Object to camera frame by the stems of their frames, shape (4, 4), of each object, where there are any.

    Args:
        folder: Holds ``ob_in_cam/STEM.txt``, ``ob_in_cam/OBJECT/STEM.txt`` or ``OBJECT/ob_in_cam/STEM.txt``.
        root: No link may lead out of this folder.
        rgb: The pictures by stem.
        masks: Its one object, if it is one, names poses without a name.

    Raises:
        ScaffoldError: Poses of no frame, or a file that is no pose.
    """
    places = {}
    for place in sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")):
        if place.name == "ob_in_cam":
            places |= {p.name: p for p in sorted(place.iterdir()) if p.is_dir() and not p.name.startswith(".")}
            if any(place.glob("*.txt")):
                places[next(iter(masks)) if len(masks) == 1 else "object"] = place
        elif (place / "ob_in_cam").is_dir():
            places[place.name] = place / "ob_in_cam"
    poses = {}
    for name, place in places.items():
        files = {s: p for s, p in files_of(place, root, (".txt",)).items() if s in rgb}
        if not files:
            raise ScaffoldError(
                f"{place}: no pose file has the stem of a frame; allowed: {next(iter(rgb))}.txt and so on. Rename the "
                "files, or delete the folder."
            )
        poses[name] = {s: read_matrix(p, (4, 4), "object to camera, OpenCV axes, in metres") for s, p in files.items()}
    return poses


def of_frame[T](by_object: Mapping[str, Mapping[str, T]], stem: str) -> dict[str, T]:
    """What there is of a frame, by object."""
    return {name: found[stem] for name, found in by_object.items() if stem in found}
