"""One picture of a capture on disk, and the reading of image files: headers first, pixels when they are asked for."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from scaffoldlab.camera import Camera, RgbdImage
from scaffoldlab.errors import ScaffoldError

BROKEN = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
"""What Pillow and NumPy raise for a file that is cut off or of another kind."""


@dataclass(eq=False)
class Frame:
    """One picture of a capture. Nothing but the headers of its files has been read.

    Attributes:
        name: Stem of its files; with several cameras ``CAMERA/STEM``.
        rgb: Colour image.
        depth: Depth image, uint16 or float.
        masks: Mask image of each object that has one.
        camera: K in half-pixel convention, and camera to capture world frame; identity if the capture has no poses.
        object_poses: Object to camera frame of each object that was tracked, shape (4, 4), as it stands in the file:
            it may be a failed one, see :func:`scaffoldlab.scan.captures.checks.usable_poses`.
        depth_unit: Metres that a depth of 1 stands for.
    """

    name: str
    rgb: Path
    depth: Path
    masks: dict[str, Path]
    camera: Camera
    object_poses: dict[str, np.ndarray] = field(default_factory=dict)
    depth_unit: float = 0.001

    def image(self) -> RgbdImage:
        """Colours and depth [m], 0 where nothing was measured; colours of another size are brought to the depth's.

        Raises:
            ScaffoldError: A file is cut off.
        """
        size = (self.camera.width, self.camera.height)
        try:
            with Image.open(self.rgb) as picture:
                picture = picture.convert("RGB")
                rgb = np.array(picture if picture.size == size else picture.resize(size, Image.Resampling.BOX))
        except BROKEN as error:
            raise unreadable(self.rgb, error) from None
        return RgbdImage(rgb, self.raw_depth() * self.depth_unit, self.camera)

    def raw_depth(self) -> np.ndarray:
        """Depth in the file's unit, 0 where nothing was measured, shape (height, width), float.

        Raises:
            ScaffoldError: The file is cut off.
        """
        try:
            if self.depth.suffix == ".npy":
                raw = np.load(self.depth, allow_pickle=False)
            else:
                with Image.open(self.depth) as picture:
                    raw = np.array(picture)
        except BROKEN as error:
            raise unreadable(self.depth, error) from None
        raw = raw.astype(float)
        return np.where(np.isfinite(raw) & (raw > 0), raw, 0.0)

    def mask(self, object_name: str) -> np.ndarray:
        """Where the object is seen, bool, shape (height, width).

        Raises:
            ScaffoldError: There is no such mask, or its file is cut off.
        """
        path = self.masks.get(object_name)
        if path is None:
            allowed = ", ".join(sorted(self.masks)) or "none, the frame has no masks"
            raise ScaffoldError(f"frame {self.name}: no mask of {object_name!r}; allowed: {allowed}.")
        try:
            with Image.open(path) as picture:
                pixels = np.array(picture)
        except BROKEN as error:
            raise unreadable(path, error) from None
        if pixels.ndim == 3:
            pixels = pixels[..., : 1 if pixels.shape[2] == 2 else 3].any(-1)  # without the alpha channel
        return pixels > 0


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of an image [px], from its header.

    Raises:
        ScaffoldError: It is no image.
    """
    try:
        with Image.open(path) as picture:
            return picture.size
    except BROKEN as error:
        raise unreadable(path, error) from None


def depth_header(path: Path) -> tuple[tuple[int, int], str]:
    """Width and height of a depth image [px] and its kind of numbers, ``u`` for whole ones or ``f``, from its header.

    Raises:
        ScaffoldError: It is no depth image.
    """
    try:
        if path.suffix == ".npy":
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            if array.ndim == 2 and array.dtype.kind in "uif" and array.dtype.itemsize > 1:
                return array.shape[::-1], "f" if array.dtype.kind == "f" else "u"
            got = f"an array of shape {array.shape}, {array.dtype}"
        else:
            with Image.open(path) as picture:
                if picture.mode in ("I;16", "I;16B", "I;16L", "I", "F"):
                    return picture.size, "f" if picture.mode == "F" else "u"
                got = f"an image of mode {picture.mode}"
    except BROKEN as error:
        raise unreadable(path, error) from None
    raise ScaffoldError(
        f"{path}: got {got}; allowed: one channel of 16 bits, or floats in a .npy. A coloured or 8 bit picture of "
        "depth does not hold the depth: export it again as 16 bit PNG."
    )


def unreadable(path: Path, error: Exception) -> ScaffoldError:
    """The error for an image that is cut off or none at all."""
    return ScaffoldError(f"{path}: not readable as an image ({error}). Capture or copy it again, or delete its frame.")
