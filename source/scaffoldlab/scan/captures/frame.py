"""One picture of a capture, in files on disk or in an archive: read when it is asked for."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from scaffoldlab.camera import Camera, RgbdImage
from scaffoldlab.errors import ScaffoldError
from scaffoldlab.scan.archives import AnyPath
from scaffoldlab.scan.captures.images import open_image, read_depth


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
        confidence: Image of the confidence in the depth; where it is 0, nothing counts as measured.
    """

    name: str
    rgb: AnyPath
    depth: AnyPath
    masks: dict[str, Path]
    camera: Camera
    object_poses: dict[str, np.ndarray] = field(default_factory=dict)
    depth_unit: float = 0.001
    confidence: AnyPath | None = None

    def image(self) -> RgbdImage:
        """Colours and depth [m], 0 where nothing was measured; colours of another size are brought to the depth's.

        Raises:
            ScaffoldError: A file is cut off.
        """
        size = (self.camera.width, self.camera.height)
        with open_image(self.rgb) as picture:
            picture = picture.convert("RGB")
            rgb = np.array(picture if picture.size == size else picture.resize(size, Image.Resampling.BOX))
        return RgbdImage(rgb, self.raw_depth() * self.depth_unit, self.camera)

    def raw_depth(self) -> np.ndarray:
        """Depth in the file's unit, 0 where nothing was measured, shape (height, width), float.

        Raises:
            ScaffoldError: The file is cut off.
        """
        shape = (self.camera.height, self.camera.width)
        raw = read_depth(self.depth, shape).astype(float)
        measured = np.isfinite(raw) & (raw > 0)
        if self.confidence is not None:
            measured &= read_depth(self.confidence, shape) > 0
        return np.where(measured, raw, 0.0)

    def mask(self, object_name: str) -> np.ndarray:
        """Where the object is seen, bool, shape (height, width); a mask of another size is brought to the depth's.

        Raises:
            ScaffoldError: There is no such mask, or its file is cut off.
        """
        path = self.masks.get(object_name)
        if path is None:
            allowed = ", ".join(sorted(self.masks)) or "none, the frame has no masks"
            raise ScaffoldError(f"frame {self.name}: no mask of {object_name!r}; allowed: {allowed}.")
        size = (self.camera.width, self.camera.height)
        with open_image(path) as picture:
            pixels = np.array(picture if picture.size == size else picture.resize(size, Image.Resampling.NEAREST))
        if pixels.ndim == 3:
            pixels = pixels[..., : 1 if pixels.shape[2] == 2 else 3].any(-1)  # without the alpha channel
        return pixels > 0
