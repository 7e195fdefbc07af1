"""A capture folder as an RGB-D camera: ``rgb/``, ``depth/``, ``cam_K.txt``, ``camera_in_env.txt``."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from scaffoldlab.camera import Camera, RgbdImage
from scaffoldlab.errors import ScaffoldError


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
        self.intrinsics = _matrix(folder / "cam_K.txt", (3, 3), "the camera's intrinsics")
        # OpenCV puts pixel centres at whole numbers, we put them at halves (docs/conventions.md).
        self.intrinsics[:2, 2] += 0.5
        self.pose_ec = _matrix(folder / "camera_in_env.txt", (4, 4), "camera to env frame, OpenCV axes, in metres")
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


def not_rigid(matrix: np.ndarray) -> str:
    """Why a 4 x 4 matrix is no rigid transform, or nothing."""
    if not np.isfinite(matrix).all():
        return "it holds numbers that are not finite"
    rotation = matrix[:3, :3]
    off = float(np.abs(rotation @ rotation.T - np.eye(3)).max())
    if off > 1e-2 or np.linalg.det(rotation) < 0:
        return f"its rotation part is off by {off:.2g}, or mirrors"
    return ""


def _matrix(path: Path, shape: tuple[int, int], meaning: str) -> np.ndarray:
    try:
        matrix = np.array(path.read_text().split(), float).reshape(shape)
    except OSError:
        raise ScaffoldError(f"{path}: missing. Write {meaning} there, as {shape[0]} x {shape[1]} numbers.") from None
    except ValueError:
        raise ScaffoldError(f"{path}: allowed: {shape[0]} x {shape[1]} numbers, {meaning}.") from None
    return matrix


def _image(path: Path, convert: Callable) -> np.ndarray | None:
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.load()
            return np.asarray(convert(image))
    except (OSError, SyntaxError):  # half-written; Pillow raises SyntaxError for a broken PNG chunk
        return None
