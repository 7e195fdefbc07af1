"""Poses of the mesh that was scanned, or of the body that was made from it: which of both a tracker has recorded."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scaffoldlab.scan.captures.overlap import spread
from scaffoldlab.scan.render import renderer_of
from scaffoldlab.usd.reader import layer_facts

if TYPE_CHECKING:
    from scaffoldlab.scan.captures.frame import Frame

LOOKS = 5
"""Frames whose depth decides."""


def file_to_body(path: Path) -> np.ndarray | None:
    """The scanned mesh's frame to the body's, both in metres, shape (4, 4); None if the object was not scanned."""
    text = layer_facts(path).get("file_to_body")
    if text is None:
        return None
    pose = np.array(str(text).split(), float).reshape(4, 4)
    pose[:3, :3] /= np.cbrt(np.linalg.det(pose[:3, :3]))  # the file may have been in millimetres, poses are in metres
    return pose


def in_body_frame(frames: Sequence["Frame"], name: str, path: Path) -> tuple[Sequence["Frame"], bool]:
    """The frames with the object's poses as those of its body, and whether they were of the scanned mesh before.

    ``scan object`` moves the origin and turns the mesh, but a tracker is given the mesh as it was scanned. The depth
    pictures tell which of both frames the poses are of.

    Args:
        frames: Frames with object poses.
        name: Name of the object.
        path: Its USD file.
    """
    to_body = file_to_body(path)
    looks = spread([frame for frame in frames if name in frame.object_poses], LOOKS)
    if to_body is None or not looks:
        return frames, False
    from_body = np.linalg.inv(to_body)  # body to scanned mesh: what a pose of the mesh has to be followed by
    gaps = [np.median([_gap(f, path, f.object_poses[name] @ way) for f in looks]) for way in (np.eye(4), from_body)]
    if not gaps[1] < gaps[0]:
        return frames, False
    return [
        replace(f, object_poses=f.object_poses | {name: f.object_poses[name] @ from_body})
        if name in f.object_poses
        else f
        for f in frames
    ], True


def _gap(frame: "Frame", path: Path, pose_cb: np.ndarray) -> float:
    """Median difference between the depth of a frame and that of the object at a pose, body to camera [m]."""
    render = renderer_of({"body": path}, {"body": frame.camera.pose_ec @ pose_cb}).render(frame.camera)
    depth = frame.image().depth
    both = (render.depth > 0) & (depth > 0)
    return float(np.median(np.abs(render.depth - depth)[both])) if both.sum() > 20 else np.inf
