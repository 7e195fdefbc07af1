"""The raw data of Polycam's app: keyframes of an iPhone with lidar, ARKit's poses beside them."""

import json
from pathlib import Path

import numpy as np

from scaffoldlab.camera import Camera
from scaffoldlab.errors import ScaffoldError
from scaffoldlab.geometry import not_rigid
from scaffoldlab.scan.captures.arkit import depth_camera, objects_beside, same_aspect
from scaffoldlab.scan.captures.files import PICTURES, Layout, files_of, same_stems
from scaffoldlab.scan.captures.frame import Frame
from scaffoldlab.scan.captures.images import depth_header, image_size
from scaffoldlab.scan.captures.objects import of_frame


def read_polycam(folder: Path) -> Layout:
    """Reads ``images/``, ``depth/`` (mm) and ``cameras/``, or the corrected ones where Polycam has improved the poses.

    The lidar has fewer pixels than the camera: frames have the size of the depth, and K is scaled to it.

    Args:
        folder: The folder ``keyframes``.

    Raises:
        ScaffoldError: Files are missing or hold something else.
    """
    corrected = (
        "corrected_" if (folder / "corrected_cameras").is_dir() and (folder / "corrected_images").is_dir() else ""
    )
    rgb = files_of(folder / f"{corrected}images", folder, PICTURES)
    depth = files_of(folder / "depth", folder, (".png",))
    cameras = files_of(folder / f"{corrected}cameras", folder, (".json",))
    if corrected:  # it drops frames that it could not place
        depth = {stem: depth[stem] for stem in depth if stem in rgb}
    same_stems(folder, {f"{corrected}images": rgb, "depth": depth})
    same_stems(folder, {f"{corrected}images": rgb, f"{corrected}cameras": cameras})
    masks, poses = objects_beside(folder, rgb)
    frames = []
    for stem in rgb:
        size, _ = depth_header(depth[stem])
        camera = _camera(cameras[stem], image_size(rgb[stem]), size)
        frames.append(
            Frame(stem, rgb[stem], depth[stem], of_frame(masks, stem), camera, object_poses=of_frame(poses, stem))
        )
    return Layout("Polycam's raw data", frames, True, "u", 0.001)


def _camera(path: Path, image: tuple[int, int], depth: tuple[int, int]) -> Camera:
    try:
        numbers = json.loads(path.read_text())
        fx, fy, cx, cy = (float(numbers[key]) for key in ("fx", "fy", "cx", "cy"))
        size = int(numbers["width"]), int(numbers["height"])
        pose = np.eye(4)
        pose[:3] = [[float(numbers[f"t_{row}{column}"]) for column in range(4)] for row in range(3)]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ScaffoldError(
            f"{path}: {type(error).__name__} {error}; allowed: fx, fy, cx, cy, width, height and t_00 to t_23. Export "
            "the raw data again."
        ) from None
    reason = not_rigid(pose)
    if reason or not np.isfinite((fx, fy, cx, cy)).all() or fx <= 0 or fy <= 0:
        raise ScaffoldError(f"{path}: {reason or 'K is not finite and positive'}. Delete this keyframe.")
    if size != image or not same_aspect(depth, image):
        raise ScaffoldError(
            f"{path}: says {size[0]} x {size[1]} pixels, the image has {image[0]} x {image[1]} and the depth "
            f"{depth[0]} x {depth[1]}; allowed: one size for camera and image, one aspect for all. Export "
            "the raw data again."
        )
    return depth_camera((fx, fy, cx, cy), pose, image, depth)
