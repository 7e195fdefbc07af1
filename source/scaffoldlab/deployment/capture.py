"""A capture folder as an RGB-D camera: ``rgb/``, ``depth/``, ``cam_K.txt``, ``camera_in_env.txt``."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from scaffoldlab.camera import Camera, RgbdImage
from scaffoldlab.errors import ScaffoldError
from scaffoldlab.files import by_number, read_matrix
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
        focal = np.diag(self.intrinsics)[:2]
        if not np.isfinite(self.intrinsics).all() or (focal <= 0).any() or (self.intrinsics[2] != (0, 0, 1)).any():
            raise ScaffoldError(
                f"{folder / 'cam_K.txt'}: got {self.intrinsics.tolist()}; allowed: fx 0 cx, 0 fy cy, 0 0 1 with "
                "positive focal lengths [px]. Write the colour camera's calibration there."
            )
        # OpenCV puts pixel centres at whole numbers, we put them at halves (docs/conventions.md).
        self.intrinsics[:2, 2] += 0.5
        self.pose_ec = read_matrix(folder / "camera_in_env.txt", (4, 4), "camera to env frame, OpenCV axes, in metres")
        reason = not_rigid(self.pose_ec)
        if not reason and (self.pose_ec[3] != (0, 0, 0, 1)).any():
            reason = f"its last row is {self.pose_ec[3].tolist()}"
        if reason:
            raise ScaffoldError(
                f"{folder / 'camera_in_env.txt'}: {reason}; allowed: a rotation, a translation in the last column, and "
                "0 0 0 1 as the last row."
            )

    def capture(self) -> RgbdImage:
        """The picture of the highest number whose colours and depth are both there; half-written ones are passed over.

        Raises:
            ScaffoldError: There is none, or colours and depth do not fit together.
        """
        stems = {p.stem for p in (self.folder / "rgb").glob("*.png")} & {
            p.stem for p in (self.folder / "depth").glob("*.png")
        }
        for stem in sorted(stems, key=by_number, reverse=True):
            rgb = _image(self.folder / "rgb" / f"{stem}.png", lambda image: image.convert("RGB"))
            depth = _image(self.folder / "depth" / f"{stem}.png", lambda image: image)
            if rgb is None or depth is None:
                continue
            if depth.shape != rgb.shape[:2] or depth.dtype not in (np.uint16, np.int32):
                height, width, channels = (*depth.shape, 1)[:3]
                raise ScaffoldError(
                    f"{self.folder}: rgb/{stem}.png is {rgb.shape[1]} x {rgb.shape[0]} pixels, depth/{stem}.png "
                    f"{width} x {height} pixels, {depth.dtype} in {channels} channels; allowed: the same size, depth "
                    "as uint16 in one channel. Save the depth as it was measured, not as a picture of it."
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
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):  # what Pillow raises for half a file
        return None
