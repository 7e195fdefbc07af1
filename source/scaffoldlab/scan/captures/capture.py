"""Reads a capture: RGB-D pictures with their cameras, and with masks and poses where there are any.

The folders that capture programs leave:

==================  ====================================================================================================
one camera          ``rgb/*.png|jpg``, ``depth/*.png|npy|exr``, ``cam_K.txt``; ``masks/*.png`` or ``masks/OBJECT/*.png``
with camera poses   besides, ``cam_in_world/STEM.txt``, or ``cam_in_world.txt`` for a camera that stands still
with object poses   besides, ``ob_in_cam/STEM.txt``, ``ob_in_cam/OBJECT/STEM.txt`` or ``OBJECT/ob_in_cam/STEM.txt``
several cameras     ``CAMERA/``, each as above with its own ``cam_in_world.txt``
BundleSDF's output  ``color/``, ``depth/``, ``mask/``, ``cam_K.txt``, ``ob_in_cam/``
Polycam's raw data  ``keyframes/images/``, ``keyframes/depth/``, ``keyframes/cameras/``
Record3D's archive  ``NAME.r3d``, or unpacked ``metadata``, ``rgbd/*.jpg``, ``rgbd/*.depth``, ``rgbd/*.conf``
Record3D's export   ``metadata.json``, ``rgb/*.jpg``, ``depth/*.exr``
besides, of both    ``masks/`` and ``ob_in_cam/`` as above, beside ``images/``, ``rgbd/`` or ``rgb/``; not in an archive
==================  ====================================================================================================

Poses are 4 x 4, OpenCV axes, metres; ``cam_in_world`` is camera to world. ``cam_K.txt`` has pixel centres at whole
numbers, as OpenCV has them, and gets half a pixel more.
"""

import math
import os
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

from scaffoldlab.errors import ScaffoldError
from scaffoldlab.files import by_number
from scaffoldlab.scan.archives import open_archive
from scaffoldlab.scan.captures.depth_unit import find_depth_unit
from scaffoldlab.scan.captures.files import Layout
from scaffoldlab.scan.captures.frame import Frame
from scaffoldlab.scan.captures.polycam import read_polycam
from scaffoldlab.scan.captures.record3d import read_record3d
from scaffoldlab.scan.captures.tree import read_cameras, read_tree

ARCHIVE = ".r3d"
"""The one kind of capture that is a file."""


@dataclass
class Capture:
    """The pictures of one capture.

    Attributes:
        folder: Where it was read from; for an archive, that file.
        frames: In the order of their names, numbers as numbers; camera after camera.
        depth_unit: Metres that a depth of 1 in the files stands for.
        depth_evidence: What the unit was concluded from, in words.
        posed: Whether the cameras' poses in one common world are known.
        depth_unit_is_sure: False if another unit is as plausible.
        layout: What kind of folder it is, in words.
    """

    folder: Path
    frames: list[Frame]
    depth_unit: float
    depth_evidence: str
    posed: bool
    depth_unit_is_sure: bool = True
    layout: str = "one camera"

    @property
    def object_names(self) -> list[str]:
        """Every object with a mask or a pose in some frame."""
        return sorted({name for f in self.frames for name in (*f.masks, *f.object_poses)})


def read_capture(folder: str | os.PathLike[str], *, depth_unit: float | None = None) -> Capture:
    """Reads the headers of a capture, and a few depth images if their unit is not given.

    Args:
        folder: One of the layouts above; the archive of Record3D is read in place.
        depth_unit: Metres that a depth of 1 stands for, e.g. 0.001; concluded from the images if None.

    Raises:
        ScaffoldError: It is no such folder, files are missing or do not fit together, or the unit cannot be told.
    """
    folder = Path(folder)
    if not folder.is_dir() and not (folder.is_file() and folder.suffix.lower() == ARCHIVE):
        raise ScaffoldError(
            f"{folder}: no such folder or {ARCHIVE} file. Give the folder of a capture, which holds rgb/ and depth/, "
            "or a recording of Record3D."
        )
    if depth_unit is not None and not (math.isfinite(depth_unit) and depth_unit > 0):
        raise ScaffoldError(f"{folder}: got a depth unit of {depth_unit} m; allowed: above 0, e.g. 0.001 for mm.")
    layout = _read_layout(folder)
    if depth_unit is not None:
        found = depth_unit, f"{depth_unit:g} m was given", True
    elif layout.depth_unit is not None:
        found = layout.depth_unit, f"{layout.name} always has a depth unit of {layout.depth_unit:g} m", True
    else:
        found = find_depth_unit(layout.frames, layout.depth_kind, posed=layout.posed)
    unit, evidence, sure = found
    frames = [replace(f, depth_unit=unit) for f in layout.frames]
    return Capture(folder, frames, unit, evidence, layout.posed, sure, layout.name)


def _read_layout(folder: Path) -> Layout:
    if folder.is_file():
        return read_record3d(zipfile.Path(open_archive(folder, "recording of Record3D")))
    exported = (folder / "metadata.json").is_file() and not (folder / "cam_K.txt").exists()
    if (folder / "rgbd").is_dir() or (exported and (folder / "rgb").is_dir()):
        return read_record3d(folder)
    for keyframes in (folder / "keyframes", folder):
        if (keyframes / "cameras").is_dir() or (keyframes / "corrected_cameras").is_dir():
            return read_polycam(keyframes)
    if (folder / "rgb").is_dir():
        return read_tree(folder, folder, "rgb", "masks")
    if (folder / "color").is_dir():
        return read_tree(folder, folder, "color", "mask")
    cameras = sorted((p for p in folder.iterdir() if (p / "rgb").is_dir()), key=lambda p: by_number(p.name))
    if not cameras:
        raise ScaffoldError(
            f"{folder}: no capture; allowed: rgb/, depth/ and cam_K.txt here or in one folder per camera, BundleSDF's "
            "output with color/, Polycam's keyframes/, or Record3D's rgbd/. Give the folder that holds one of these."
        )
    return read_cameras(folder, cameras)
