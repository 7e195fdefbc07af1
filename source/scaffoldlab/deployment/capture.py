"""A capture folder as an RGB-D camera: ``rgb/``, ``depth/``, ``cam_K.txt``, ``camera_in_env.txt``."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from scaffoldlab.camera import Camera, RgbdImage
from scaffoldlab.errors import ScaffoldError
from scaffoldlab.files import read_matrix
from scaffoldlab.geometry import not_rigid


class CaptureFolder:
    """The layout of BundleSDF and FoundationPose, with the camera's pose beside the intrinsics.

    Args:
        folder: Holds ``rgb/*.png`` and ``depth/*.png`` (uint16, 0 where nothing was measured) with the same stems,
            ``cam_K.txt`` (3 x 3, OpenCV: the centre of the top left pixel is (0, 0)), and ``camera_in_env.txt``
            (4 x 4, camera to env frame, OpenCV axes [m]).
        depth_unit: Metres that a depth of 1 stands for.

    Raises:
        ScaffoldError: A file is missing or is no such matrix.
    """

    def __init__(self, folder: Path, *, depth_unit: float = 0.001):
        self.folder, self.depth_unit = folder, depth_unit
        self.intrinsics = read_matrix(folder / "cam_K.txt", (3, 3), "the camera's intrinsics")
        # OpenCV puts pixel centres at whole numbers, we put them at halves (docs/conventions.md).
        self.intrinsics[:2, 2] += 0.5
        self.pose_ec = read_matrix(folder / "camera_in_env.txt", (4, 4), "camera to env frame, OpenCV axes, in metres")
        reason = not_rigid(self.pose_ec)
        if reason:
            raise ScaffoldError(f"{folder / 'camera_in_env.txt'}: {reason}; allowed: a rotation and a translation.")

    def capture(self) -> RgbdImage:
        """The newest picture whose colours and depth are both there; one that is being written is passed over.

        Raises:
            ScaffoldError: There is none.
        """
        stems = {p.stem for p in (self.folder / "rgb").glob("*.png")} & {
            p.stem for p in (self.folder / "depth").glob("*.png")
        }
        for stem in sorted(stems, reverse=True):
            rgb = _image(self.folder / "rgb" / f"{stem}.png", lambda image: image.convert("RGB"))
            depth = _image(self.folder / "depth" / f"{stem}.png", lambda image: image)
            if rgb is None or depth is None:
                continue
            if depth.shape != rgb.shape[:2]:
                raise ScaffoldError(
                    f"{self.folder}: rgb/{stem}.png is {rgb.shape[1]} x {rgb.shape[0]} and depth/{stem}.png "
                    f"{depth.shape[-1]} x {depth.shape[0]} pixels; allowed: the same size, depth in one channel."
                )
            camera = Camera(self.intrinsics, self.pose_ec, rgb.shape[1], rgb.shape[0])
            return RgbdImage(rgb, depth.astype(float) * self.depth_unit, camera)
        raise ScaffoldError(f"{self.folder}: no readable pair rgb/NAME.png, depth/NAME.png. Capture one first.")


def _image(path: Path, convert: Callable) -> np.ndarray | None:
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.load()
            return np.asarray(convert(image))
    except (OSError, SyntaxError):  # half-written; Pillow raises SyntaxError for a broken PNG chunk
        return None
