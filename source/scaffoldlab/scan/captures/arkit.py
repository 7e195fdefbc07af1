"""ARKit's conventions, shared by the apps that record with it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from scaffoldlab.camera import Camera
from scaffoldlab.errors import ScaffoldError
from scaffoldlab.scan.archives import AnyPath
from scaffoldlab.scan.captures.images import image_size
from scaffoldlab.scan.captures.objects import object_masks, object_poses

WORLD_FROM_ARKIT = np.array(((1.0, 0, 0, 0), (0, 0, -1, 0), (0, 1, 0, 0), (0, 0, 0, 1)))
"""ARKit's world has y up, ours z."""

OPENGL_FROM_OPENCV = np.diag((1.0, -1, -1, 1))
"""ARKit's camera looks along -z with y up, ours along z with y down."""


def depth_camera(
    coefficients: Sequence[float] | np.ndarray, pose: np.ndarray, size: tuple[int, int], depth_size: tuple[int, int]
) -> Camera:
    """The camera of a depth image: the lidar has fewer pixels than the picture that K is of.

    Args:
        coefficients: fx, fy, cx, cy [px], from the corner of the image, as ARKit counts and we do.
        pose: Camera to world as ARKit has them, shape (4, 4).
        size: Width and height of the image that the coefficients are of [px].
        depth_size: Width and height of the depth image [px].
    """
    fx, fy, cx, cy = coefficients
    x, y = depth_size[0] / size[0], depth_size[1] / size[1]
    intrinsics = np.array(((fx * x, 0, cx * x), (0, fy * y, cy * y), (0, 0, 1)))
    return Camera(intrinsics, WORLD_FROM_ARKIT @ pose @ OPENGL_FROM_OPENCV, *depth_size)


def same_aspect(size_a: tuple[int, int], size_b: tuple[int, int]) -> bool:
    """Whether two images, width and height, are of one shape, but for rounding."""
    return abs(size_a[0] * size_b[1] / (size_a[1] * size_b[0]) - 1) <= 0.02


def objects_beside(
    folder: Path, rgb: Mapping[str, AnyPath]
) -> tuple[dict[str, dict[str, Path]], dict[str, dict[str, np.ndarray]]]:
    """Masks and poses that somebody has put beside what the app wrote: ``masks/`` of its pictures, ``ob_in_cam/``.

    Args:
        folder: Of the capture.
        rgb: The pictures by stem.

    Returns:
        Both by object and stem, empty where there are none.

    Raises:
        ScaffoldError: They do not fit the pictures.
    """
    masks = object_masks(folder / "masks", folder, rgb)
    for found in masks.values():
        for stem, mask in found.items():
            if stem in rgb and not same_aspect(image_size(mask), image_size(rgb[stem])):
                (width, height), (wanted_width, wanted_height) = image_size(mask), image_size(rgb[stem])
                raise ScaffoldError(
                    f"{mask}: {width} x {height} pixels, but {rgb[stem].name} has {wanted_width} x {wanted_height}; "
                    "allowed: a mask of this picture, whole. Segment the pictures as the app wrote them."
                )
    return masks, object_poses(folder, folder, rgb, masks)
