"""What a keypoint is: a named point that is fixed in the frame of one body."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from scaffoldlab.errors import ScaffoldError
from scaffoldlab.geometry import pose_apply


@dataclass(frozen=True)
class Keypoint:
    """A named point on a body.

    Attributes:
        name: Name that the planner and the prompts use, e.g. ``"cutting board"``.
        body: Body of the scene that carries it, e.g. ``"apple"`` or ``"cabinet/drawer_top"``.
        point_b: Point in the body frame [m].
    """

    name: str
    body: str
    point_b: tuple[float, float, float]


def keypoint_positions(keypoints: tuple[Keypoint, ...], poses: Mapping[str, np.ndarray]) -> np.ndarray:
    """Positions of keypoints in the frame of the body poses [m], shape (K, 3).

    Args:
        keypoints: K keypoints.
        poses: Pose of each body, xyz [m] + quat_xyzw, shape (7,). Scaffolds, section 3.2: a tracked
            keypoint is a rigid transform of the point that was found at t = 1.
    """
    return np.stack([pose_apply(poses[k.body], np.asarray(k.point_b, float)) for k in keypoints])


def keypoint_snapped(
    point_e: np.ndarray,
    name: str,
    surfaces: Mapping[str, np.ndarray],
    poses: Mapping[str, np.ndarray],
    *,
    limit: float = 0.05,
) -> tuple[Keypoint, float]:
    """The keypoint on the surface sample nearest to a located point, and its distance from that point [m].

    A lifted pixel is off the surface by the error of the depth and of the pointing. Scaffolds snaps it to the
    nearest of 10 000 surface samples; here the samples of all bodies compete, so that a wrong name costs nothing.

    Args:
        point_e: Located point in the env frame [m], shape (3,).
        name: Name of the keypoint.
        surfaces: Surface samples of each body in its own frame [m], shape (M, 3) each.
        poses: Pose of each of these bodies in the env frame, xyz [m] + quat_xyzw, shape (7,).
        limit: Largest distance [m] that still counts as a hit.

    Raises:
        ScaffoldError: There is no sample, or none within ``limit``.
    """
    nearest, body, point_b = np.inf, "", np.zeros(3)
    for candidate, samples_b in surfaces.items():
        distances = np.linalg.norm(pose_apply(poses[candidate], samples_b) - point_e, axis=-1)
        if len(distances) and distances.min() < nearest:
            nearest, body, point_b = float(distances.min()), candidate, samples_b[distances.argmin()]
    if not nearest <= limit:
        x, y, z = np.asarray(point_e, float)
        found = f"the nearest surface, of {body!r}, is {100 * nearest:.1f} cm away" if body else "no surface is near"
        raise ScaffoldError(
            f"keypoint {name!r}: located at ({x:.3f}, {y:.3f}, {z:.3f}) m in the env frame, but {found}; allowed: "
            f"{100 * limit:g} cm. Bodies: {', '.join(surfaces) or 'none'}. Point again, or check the camera's pose."
        )
    return Keypoint(name, body, (float(point_b[0]), float(point_b[1]), float(point_b[2]))), nearest
