"""Turns a scanned object upright as it rests on a table, its long side along x, its centre of mass at the origin."""

from __future__ import annotations

from typing import Literal

import numpy as np
import trimesh

from scaffoldlab.scan.findings import Finding
from scaffoldlab.scan.objects.solid import decimate
from scaffoldlab.scan.up import AXES, up_direction

SNAP_DEG = 8.0
"""An axis this close to a resting pose's is meant to be it."""
HULL_FACES = 400
ASKEW = 1.15
"""The rectangle along the principal axes may be this much larger than the smallest one."""
ROUND = 0.03
"""Without a resting pose more probable than this, an object rolls."""


def resting_pose(
    mesh: trimesh.Trimesh, center: np.ndarray, *, up: str = "auto", hint: Literal["y", "z"] | None = None
) -> tuple[np.ndarray, Finding]:
    """The transform of an object from the axes of its file to its body frame.

    Args:
        mesh: Solid surface [m].
        center: Centre of mass [m], shape (3,).
        up: The direction of the file that points up, as :func:`~scaffoldlab.scan.up.up_direction` reads it. ``auto``
            takes z, else y, where the object rests stably that way, else its most probable resting pose.
        hint: Axis that points up by the file's format; ``auto`` takes it first.

    Returns:
        File to body frame, shape (4, 4), and what was decided.

    Raises:
        ScaffoldError: ``up`` is no direction.
    """
    given = up_direction(up)
    stable = stable_ups(mesh, center)
    if given is None and (not stable or stable[0][1] < ROUND):
        axis = hint or "z"
        return _pose(mesh, center, np.array(AXES[axis], float)), Finding(
            check="up", severity="ok", seen=f"{axis} of the file; the object is round and rests any way"
        )
    # On its side a cup rolls: one of many poses there, each of little probability, is none that is meant.
    able = [found for found, probability in stable if given is not None or probability > ROUND]
    meant = {axis: np.array(AXES[axis]) for axis in (hint or "z", "z", "y")} if given is None else {up: given}
    near = {}
    for axis, direction in meant.items():
        angles = [_angle_deg(found, direction) for found in able]
        if angles and min(angles) <= SNAP_DEG:
            near[axis] = able[int(np.argmin(angles))], min(angles)
    if near:
        axis, *others = near
        direction, angle = near[axis]
        seen = f"{axis} of the file, {angle:.1f} deg from a stable resting pose; turned onto it"
        if others and hint is None:
            seen += f"; it would rest on --up {others[0]} too"
        return _pose(mesh, center, direction), Finding(check="up", severity="ok", seen=seen)
    if given is not None:
        seen = f"{up} of the file; the object does not rest stably that way and will tip over"
        fix = "Check --up, or leave it out to take the most probable resting pose"
        return _pose(mesh, center, given), Finding(check="up", severity="warning", seen=seen, fix=fix)
    direction, probability = stable[0]
    named = ", ".join(f"{c:.2f}" for c in direction)
    seen = f"({named}) of the file, the most probable resting pose ({100 * probability:.0f} %)"
    sure = probability > 0.6 or len(stable) == 1
    fix = "" if sure else "If it lies the wrong way in the picture, say which axis of the file is up with --up"
    return _pose(mesh, center, direction), Finding(check="up", severity="ok" if sure else "warning", seen=seen, fix=fix)


def stable_ups(mesh: trimesh.Trimesh, center: np.ndarray) -> list[tuple[np.ndarray, float]]:
    """Directions that point up in the resting poses, shape (3,), with their probabilities, likeliest first."""
    hull = decimate(mesh.convex_hull, HULL_FACES).convex_hull
    transforms, chances = trimesh.poses.compute_stable_poses(hull, center_mass=center, threshold=0.005)
    return [(np.array(t[2, :3]), float(chance)) for t, chance in zip(transforms, chances, strict=True)]


def _pose(mesh: trimesh.Trimesh, center: np.ndarray, up: np.ndarray) -> np.ndarray:
    """Turns ``up`` to z, the long side of the outline to x, and moves the centre of mass to the origin."""
    turn = trimesh.geometry.align_vectors(up, [0, 0, 1])
    outline = trimesh.transform_points(mesh.convex_hull.vertices, turn)[:, :2]
    surface = trimesh.sample.sample_surface(mesh, 5000, seed=0)[0]
    spread = np.cov(trimesh.transform_points(surface, turn)[:, :2].T)
    pose = trimesh.transformations.rotation_matrix(_yaw(outline, spread), [0, 0, 1]) @ turn
    pose[:3, 3] = -pose[:3, :3] @ center
    return pose


def _yaw(outline: np.ndarray, spread: np.ndarray) -> float:
    """The smallest turn that puts the sides of the oriented rectangle along x and y, the longer one along x.

    Round things stay as they are, and what is like a mug is turned by its principal axes: the smallest rectangle around
    it lies askew to the handle.

    Args:
        outline: Corners of the convex hull, shape (P, 2).
        spread: Covariance of the surface, shape (2, 2).
    """

    def sides(yaw: float) -> np.ndarray:
        c, s = np.cos(yaw), np.sin(yaw)
        return np.ptp(outline @ np.array([[c, -s], [s, c]]).T, axis=0)

    frame, _ = trimesh.bounds.oriented_bounds_2D(outline)
    smallest = float(np.arctan2(frame[1, 0], frame[0, 0]))
    variances, axes = np.linalg.eigh(spread)
    principal = -float(np.arctan2(axes[1, 1], axes[0, 1])) if variances[0] < 0.95 * variances[1] else 0.0
    askew = abs((principal - smallest + np.pi / 4) % (np.pi / 2) - np.pi / 4) > np.radians(10)
    yaw = principal if askew and sides(principal).prod() < ASKEW * sides(smallest).prod() else smallest
    if sides(yaw)[1] > 1.02 * sides(yaw)[0]:
        yaw += np.pi / 2
    return (yaw + np.pi / 2) % np.pi - np.pi / 2


def _angle_deg(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.degrees(np.arccos(np.clip(a @ b, -1, 1))))
