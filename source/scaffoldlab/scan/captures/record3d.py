"""Recordings of the Record3D app: pictures and depth of an iPhone or iPad, ARKit's poses in one file beside them."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from scaffoldlab.errors import ScaffoldError
from scaffoldlab.files import by_number
from scaffoldlab.geometry import quat_apply
from scaffoldlab.scan.archives import AnyPath
from scaffoldlab.scan.captures.arkit import depth_camera, objects_beside, same_aspect
from scaffoldlab.scan.captures.files import PICTURES, Layout, files_of, refuse_leaving
from scaffoldlab.scan.captures.frame import Frame
from scaffoldlab.scan.captures.images import BROKEN, depth_header, image_size, unpack_lzfse, unreadable
from scaffoldlab.scan.captures.objects import of_frame

DEPTH_SIZES = (256, 192), (640, 480)
"""Longer and shorter side of the lidar's depth and of the TrueDepth camera's [px], where metadata does not say them."""

UNPOSED = (0, 0, 0, 1, 0, 0, 0)
"""What stands for every pose of the TrueDepth camera, which ARKit does not track."""


def read_record3d(root: AnyPath) -> Layout:
    """Reads a recording: an archive in place or unpacked, or the app's export as EXR and pictures.

    An archive has ``metadata`` and, of each frame, ``rgbd/0.jpg``, ``rgbd/0.depth`` and ``rgbd/0.conf``, the latter two
    in LZFSE; the export has ``metadata.json``, ``rgb/0.jpg`` and ``depth/0.exr``. Depth whose confidence is 0, of 0 to
    2, counts as not measured (some programs keep 2 alone); the confidence may be missing. K is of the size that
    metadata has, whatever that of the pictures: frames have the size of the depth, and K is scaled to it. ``initPose``,
    which would move all poses alike, is not used: where the world is that of the first camera, z is not up.

    Args:
        root: The archive, or the folder.

    Raises:
        ScaffoldError: Files are missing or hold something else.
    """
    exported = isinstance(root, Path) and (root / "rgb").is_dir()
    metadata = root / ("metadata.json" if exported else "metadata")
    refuse_leaving(metadata, root)
    told = _read_metadata(metadata)
    rgb = files_of(root / ("rgb" if exported else "rgbd"), root, PICTURES)
    depth = files_of(root / ("depth" if exported else "rgbd"), root, (".exr" if exported else ".depth",))
    confidence = {} if exported else files_of(root / "rgbd", root, (".conf",))
    wanted = [str(index) for index in range(len(told.poses))]
    for kind, files in (("pictures", rgb), ("depth images", depth)):
        odd = sorted(files.keys() ^ set(wanted), key=by_number)
        if odd or not wanted:
            raise ScaffoldError(
                f"{root}: {len(files)} {kind} and {len(wanted)} poses{f', no match for {odd[0]}' if odd else ''}; "
                "allowed: one of each, named 0, 1 and so on. Export the recording again."
            )
    size = told.depth_size or (told.size if exported else _size_of(depth["0"], told.size))
    masks, object_poses = objects_beside(root, rgb) if isinstance(root, Path) else ({}, {})
    frames = []
    for index, stem in enumerate(wanted):
        if exported:
            size, _ = depth_header(depth[stem])
        picture = image_size(rgb[stem])
        alike = same_aspect(picture, told.size) and same_aspect(size, told.size)
        if not alike or size[0] > picture[0]:
            raise ScaffoldError(
                f"{rgb[stem]}: {picture[0]} x {picture[1]} pixels, the depth has {size[0]} x {size[1]}, and K is of "
                f"{told.size[0]} x {told.size[1]}; allowed: one aspect for all, and no fewer pixels than the depth. "
                "Record it again with the newest version of the app."
            )
        camera = depth_camera(told.coefficients[index], told.poses[index], told.size, size)
        if not told.posed:
            camera = replace(camera, pose_ec=np.eye(4))
        frames.append(
            Frame(
                stem, rgb[stem], depth[stem], of_frame(masks, stem), camera,
                object_poses=of_frame(object_poses, stem), confidence=confidence.get(stem),
            )
        )  # fmt: skip
    return Layout("Record3D's recording", frames, told.posed, "f", 1.0)


@dataclass
class _Metadata:
    """What is known of the cameras.

    Attributes:
        size: Width and height of the image that the coefficients are of [px].
        depth_size: Those of the depth, if they are told.
        coefficients: fx, fy, cx, cy of each frame [px], shape (F, 4).
        poses: Camera to world as ARKit has them, shape (F, 4, 4).
        posed: Whether the cameras were tracked.
    """

    size: tuple[int, int]
    depth_size: tuple[int, int] | None
    coefficients: np.ndarray
    poses: np.ndarray
    posed: bool


def _read_metadata(path: AnyPath) -> _Metadata:
    try:
        data = json.loads(path.read_bytes())
        count, size = len(data["poses"]), (int(data["w"]), int(data["h"]))
        depth_size = (int(data["dw"]), int(data["dh"])) if data.get("dw") else None
        rows = np.array(data["poses"], float).reshape(count, 7)
        k = np.array(data["K"], float).reshape(3, 3).T  # column after column
        coefficients = data.get("perFrameIntrinsicCoeffs") or count * [(k[0, 0], k[1, 1], k[0, 2], k[1, 2])]
        coefficients = np.array(coefficients, float).reshape(count, 4)
    except (*BROKEN, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise ScaffoldError(
            f"{path}: {type(error).__name__} {error}; allowed: JSON with w, h, K of 9 numbers, poses of 7 and, if any, "
            "perFrameIntrinsicCoeffs of 4 numbers for each frame. Export the recording again."
        ) from None
    usable = np.isfinite(coefficients).all() and (coefficients[:, :2] > 0).all() and k[2].tolist() == [0, 0, 1]
    if not usable or min(*size, *(depth_size or size)) <= 0:
        raise ScaffoldError(
            f"{path}: K is {data['K']} of {size[0]} x {size[1]} pixels; allowed: fx 0 0 0 fy 0 cx cy 1, column after "
            "column, finite and with positive focal lengths and sizes, for each frame too. Export the recording again."
        )
    lengths = np.linalg.norm(rows[:, :4], axis=1)
    wrong = np.flatnonzero(~(np.isfinite(rows).all(1) & (np.abs(lengths - 1) < 0.01)))
    if len(wrong):
        raise ScaffoldError(
            f"{path}: pose {wrong[0]} of {count} is {rows[wrong[0]].tolist()}; allowed: qx qy qz qw of length 1 and "
            "x y z in metres, all finite. Record it again, or delete this frame."
        )
    poses = np.tile(np.eye(4), (count, 1, 1))
    for pose, row, length in zip(poses, rows, lengths, strict=True):
        pose[:3, :3] = quat_apply(row[:4] / length, np.eye(3)).T
        pose[:3, 3] = row[4:]
    return _Metadata(size, depth_size, coefficients, poses, bool((rows != UNPOSED).any()))


def _size_of(path: AnyPath, size: tuple[int, int]) -> tuple[int, int]:
    """Width and height of a depth image [px], from the number of its values and which side of its picture is longer."""
    try:
        count = len(unpack_lzfse(path, 4 * 640 * 480)) // 4
    except BROKEN as error:
        raise unreadable(path, error) from None
    for long, short in DEPTH_SIZES:
        if count == long * short:
            return (long, short) if size[0] > size[1] else (short, long)
    allowed = " or ".join(f"{long} x {short}" for long, short in DEPTH_SIZES)
    raise ScaffoldError(
        f"{path}: holds {count} values, and metadata has no dw and dh; allowed: {allowed}. Export the recording again "
        "with the newest version of the app."
    )
