"""Folders with rgb/, depth/ and cam_K.txt, as BundleSDF and FoundationPose read them, and BundleSDF's output."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from scaffoldlab.camera import Camera
from scaffoldlab.errors import ScaffoldError
from scaffoldlab.files import read_matrix
from scaffoldlab.geometry import not_rigid
from scaffoldlab.scan.captures.files import DEPTHS, PICTURES, Layout, files_of, refuse_leaving, same_stems
from scaffoldlab.scan.captures.frame import Frame
from scaffoldlab.scan.captures.images import depth_header, image_size
from scaffoldlab.scan.captures.objects import object_masks, object_poses, of_frame

BUNDLESDF_SIDE = 480
"""BundleSDF scales its cam_K.txt to this shorter side of the image [px]."""


def read_tree(folder: Path, root: Path, pictures: str, masks: str) -> Layout:
    """Reads the pictures of one camera.

    Args:
        folder: Holds ``cam_K.txt`` and the images' folders.
        root: No link may lead out of this folder.
        pictures: Name of the folder of colour images; ``color`` is BundleSDF's output.
        masks: Name of the folder of masks; it may be missing.

    Raises:
        ScaffoldError: Files are missing or do not fit together.
    """
    rgb, depth = files_of(folder / pictures, root, PICTURES), files_of(folder / "depth", root, DEPTHS)
    same_stems(folder, {pictures: rgb, "depth": depth})
    seen = object_masks(folder / masks, root, rgb)
    tracked = object_poses(folder, root, rgb, seen)
    poses = _camera_poses(folder, root, rgb)
    sizes, kinds = {}, set()
    for stem, path in rgb.items():
        sizes[stem] = image_size(path)
        size, kind = depth_header(depth[stem])
        kinds.add(kind)
        others = [(depth[stem], size)] + [(mask, image_size(mask)) for mask in of_frame(seen, stem).values()]
        for other, got in others:
            if got != sizes[stem]:
                raise ScaffoldError(
                    f"{other}: {got[0]} x {got[1]} pixels, but {path.name} in {pictures}/ has {sizes[stem][0]} x "
                    f"{sizes[stem][1]}; allowed: the same size. Export depth and masks aligned to the colour image."
                )
    if len(set(sizes.values())) > 1:
        odd = next(s for s in rgb if sizes[s] != sizes[next(iter(rgb))])
        raise ScaffoldError(
            f"{rgb[odd]}: {sizes[odd][0]} x {sizes[odd][1]} pixels, unlike the frames before; allowed: one size, "
            "since there is one cam_K.txt. Remove the frames of another size."
        )
    if len(kinds) > 1:
        raise ScaffoldError(f"{folder / 'depth'}: whole numbers and floats are mixed. Use one kind for all frames.")
    width, height = next(iter(sizes.values()))
    bundlesdf = pictures == "color"
    intrinsics = _intrinsics(folder / "cam_K.txt", root, width, height, rescale=bundlesdf)
    frames = [
        Frame(
            name=stem,
            rgb=rgb[stem],
            depth=depth[stem],
            masks=of_frame(seen, stem),
            camera=Camera(intrinsics, poses[stem] if poses else np.eye(4), width, height),
            object_poses=of_frame(tracked, stem),
        )
        for stem in rgb
    ]
    name = "BundleSDF's output" if bundlesdf else "one camera"
    return Layout(name + (", with its poses" if poses else ""), frames, bool(poses), kinds.pop())


def read_cameras(folder: Path, cameras: list[Path]) -> Layout:
    """Reads several cameras that stand still, each in its folder; frames are named ``CAMERA/STEM``.

    Raises:
        ScaffoldError: One has no pose, or files are missing or do not fit together.
    """
    layouts = [read_tree(camera, folder, "rgb", "masks") for camera in cameras]
    for camera, layout in zip(cameras, layouts, strict=True):
        if not layout.posed:
            raise ScaffoldError(
                f"{camera / 'cam_in_world.txt'}: missing; with several cameras each needs its pose. Write camera to "
                "world there, 4 x 4 numbers, OpenCV axes, in metres."
            )
    kinds = {layout.depth_kind for layout in layouts}
    if len(kinds) > 1:
        raise ScaffoldError(f"{folder}: depth is whole numbers with one camera and floats with another. Use one kind.")
    frames = [
        replace(frame, name=f"{camera.name}/{frame.name}")
        for camera, layout in zip(cameras, layouts, strict=True)
        for frame in layout.frames
    ]
    return Layout(f"{len(cameras)} cameras", frames, True, kinds.pop())


def _camera_poses(folder: Path, root: Path, rgb: dict[str, Path]) -> dict[str, np.ndarray]:
    """Camera to world of every frame, shape (4, 4) each; empty if there are no poses."""
    one, many = folder / "cam_in_world.txt", folder / "cam_in_world"
    if one.exists() and many.exists():
        raise ScaffoldError(
            f"{folder}: both cam_in_world.txt and cam_in_world/; allowed: one of them. Delete the other."
        )
    if one.exists():
        refuse_leaving(one, root)
        return dict.fromkeys(rgb, _camera_pose(one))
    if not many.exists():
        return {}
    files = files_of(many, root, (".txt",))
    missing = [stem for stem in rgb if stem not in files]
    if missing:
        raise ScaffoldError(
            f"{many}: {len(missing)} of {len(rgb)} poses are missing, e.g. {missing[0]}.txt. Write camera to world "
            "there, 4 x 4 numbers, or delete the frames without a pose."
        )
    return {stem: _camera_pose(files[stem]) for stem in rgb}


def _camera_pose(path: Path) -> np.ndarray:
    """Camera to world from a file, shape (4, 4).

    Raises:
        ScaffoldError: It is missing or no rigid transform.
    """
    pose = read_matrix(path, (4, 4), "camera to world, OpenCV axes, in metres")
    reason = not_rigid(pose)
    if reason:
        raise ScaffoldError(
            f"{path}: {reason}; allowed: camera to world, a rotation and a translation in metres. Delete the frame, or "
            "estimate its pose again."
        )
    return pose


def _intrinsics(path: Path, root: Path, width: int, height: int, *, rescale: bool) -> np.ndarray:
    """K in half-pixel convention, shape (3, 3); brought from BundleSDF's size to the images' if ``rescale``."""
    refuse_leaving(path, root)
    intrinsics = read_matrix(path, (3, 3), "the camera's intrinsics K")
    focal, center = np.diag(intrinsics)[:2], intrinsics[:2, 2]
    if not np.isfinite(intrinsics).all() or (focal <= 0).any() or not np.allclose(intrinsics[2], (0, 0, 1)):
        raise ScaffoldError(
            f"{path}: got {intrinsics.tolist()}; allowed: fx 0 cx, 0 fy cy, 0 0 1 with positive focal lengths [px]. "
            "Write the colour camera's calibration there."
        )
    ratios = 2 * center / (width, height)  # 1 with the principal point in the middle
    ratio = float(np.mean(ratios))
    sizes = (1.0, BUNDLESDF_SIDE / min(width, height)) if rescale else (1.0,)
    scale = min(sizes, key=lambda size: abs(ratio - size) / size)
    alike = np.ptp(ratios) < 0.05 * ratio  # off by one factor or not at all
    off = ratio / scale - 1 if alike else ratios / scale - 1
    if np.abs(off).max() > (0.1 if alike else 0.2):  # a lens is off by some percent, another aspect ratio by more
        write = f"If K is of that size, multiply its first two rows by {1 / ratio:.4g}; else write"
        raise ScaffoldError(
            f"{path}: the principal point ({center[0]:g}, {center[1]:g}) is the middle of an image of about "
            f"{2 * center[0]:.0f} x {2 * center[1]:.0f} pixels, but the images have {width} x {height}. "
            f"{write if alike else 'Write'} the K of these images: that of the colour camera at their size."
        )
    intrinsics[:2] /= scale
    intrinsics[:2, 2] += 0.5
    return intrinsics
