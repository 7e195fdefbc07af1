"""Finds what things stand on: the plane of a table, its edges, and the env frame that it gives."""

from dataclasses import dataclass

import numpy as np
import trimesh

from scaffoldlab.errors import ScaffoldError
from scaffoldlab.scan.o3d import open3d
from scaffoldlab.scan.scenes.background import Background

THICKNESS = 0.04
"""Thickness of the table's collider [m]: nothing tunnels through it."""
PLANE_BAND = 0.008
"""Points this far from a plane belong to it at first [m]; for the final fit half of it."""
TABLE_AREA = 0.04
"""Smallest table [m^2]."""
TILT_MAX = 15.0
"""Largest angle between the table's normal and a given up [deg]."""


@dataclass(frozen=True)
class Table:
    """A table, and the env frame that it gives: its normal up, its middle above the origin.

    Attributes:
        pose_ew: Capture's world to env frame, shape (4, 4).
        center_e: Middle of its top in the env frame [m], shape (3,).
        rotation_eb: Axes of its top as columns, the normal last, shape (3, 3).
        size: Sides of its top [m], shape (2,).
        tilt_deg: Angle between its normal and up [deg]; 0 unless up was given.
        residual: Root mean square distance of its points from the plane [m].
    """

    pose_ew: np.ndarray
    center_e: np.ndarray
    rotation_eb: np.ndarray
    size: np.ndarray
    tilt_deg: float
    residual: float

    @property
    def height(self) -> float:
        """Height of the middle of its top [m]."""
        return float(self.center_e[2])

    def above(self, points_e: np.ndarray) -> np.ndarray:
        """Height of points over the plane of its top [m], shape (..., 3) -> (...)."""
        return (points_e - self.center_e) @ self.rotation_eb[:, 2]

    def beside(self, points_e: np.ndarray) -> np.ndarray:
        """How far points are outside the edges of its top, seen from above [m]; negative inside, (..., 3) -> (...)."""
        return (np.abs((points_e - self.center_e) @ self.rotation_eb[:, :2]) - self.size / 2).max(-1)


def find_table(
    background: Background,
    *,
    cameras: np.ndarray,
    forward: np.ndarray,
    things: np.ndarray | None = None,
    up: np.ndarray | None = None,
    height: float = 0.75,
) -> Table:
    """The plane that the things stand on: of several planes the one nearest below them, else the largest.

    Args:
        background: In the capture's world.
        cameras: Where it was seen from, shape (C, 3); they must be above the table.
        forward: The first camera's direction of view, shape (3,): x of the env frame is the edge nearest to it.
        things: Positions of the objects, shape (O, 3).
        up: Direction against gravity, shape (3,); None: the table's normal.
        height: Height of the table above the floor in the env frame [m].

    Raises:
        ScaffoldError: There is no plane, or none that the cameras are above and that agrees with ``up``.
    """
    planes, refused = [], []
    for normal, offset, points in _planes(background):
        side = np.median(cameras @ normal + offset)
        normal, offset = (normal, offset) if side > 0 else (-normal, -offset)
        reason = _no_table(normal, offset, points, cameras, up)
        if reason:
            refused.append(reason)
        else:
            gap = np.inf if things is None or not len(things) else float(np.median(np.abs(things @ normal + offset)))
            planes.append((gap, normal, offset, points))
    if not planes:
        found = f"found {len(refused)} planes: {'; '.join(refused)}" if refused else "found no plane at all"
        raise ScaffoldError(
            f"scan scene: {found}. A table is flat, at least {100 * TABLE_AREA**0.5:.0f} x "
            f"{100 * TABLE_AREA**0.5:.0f} cm in view, below every camera. Show more of it, check the depth scale and "
            "the camera poses, or give the direction against gravity with --up x,y,z."
        )
    nearest = min(gap for gap, *_ in planes)
    # A table top and what lies on it are a few centimetres apart: among those near, the larger one counts.
    near = [plane for plane in planes if plane[0] <= nearest + 0.05 or not np.isfinite(nearest)]
    _, normal, offset, points = max(near, key=lambda plane: len(plane[3]))
    return _table(normal, points, forward, up if up is None else up / np.linalg.norm(up), height)


def _planes(background: Background, count: int = 6):
    """The largest planes: normal, offset and their points, best first."""
    o3d = open3d()
    cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(background.points)).voxel_down_sample(0.01)
    o3d.utility.random.seed(0)
    enough = max(100, 0.02 * len(cloud.points))
    for _ in range(count):
        if len(cloud.points) < enough:
            return
        plane, inliers = cloud.segment_plane(PLANE_BAND, 3, 1000)
        if len(inliers) < enough:
            return
        normal, offset = np.array(plane[:3]), plane[3]
        band = np.abs(background.points @ normal + offset) < PLANE_BAND
        yield _fitted(background.points[band])
        cloud = cloud.select_by_index(inliers, invert=True)


def _fitted(points: np.ndarray) -> tuple[np.ndarray, float, np.ndarray]:
    """The least squares plane of the points, three times, each time without those that are off."""
    normal = np.zeros(3)
    for _ in range(3):
        middle = points.mean(0)
        normal = np.linalg.svd((points - middle)[:: max(1, len(points) // 20_000)], full_matrices=False)[2][2]
        points = points[np.abs((points - middle) @ normal) < PLANE_BAND / 2]
    return normal, float(-normal @ points.mean(0)), points


def _no_table(normal: np.ndarray, offset: float, points: np.ndarray, cameras: np.ndarray, up: np.ndarray | None) -> str:
    """Why a plane is no table top, or nothing."""
    area = len(np.unique(np.round(points / 0.02), axis=0)) * 0.02**2
    if area < TABLE_AREA:
        return f"one of {1e4 * area:.0f} cm2, too small"
    if (cameras @ normal + offset < 0.02).any():
        return "one with cameras on both sides"
    if up is not None:
        angle = np.degrees(np.arccos(np.clip(normal @ up / np.linalg.norm(up), -1, 1)))
        if angle > TILT_MAX:
            return f"one whose normal is {angle:.0f} deg from the given up"
    return ""


def _table(normal: np.ndarray, points: np.ndarray, forward: np.ndarray, up: np.ndarray | None, height: float) -> Table:
    """The table of a plane's points: the largest patch of them, its oriented rectangle, and the env frame."""
    rotation = rotation_with_up(normal)
    flat = points @ rotation.T
    patch = flat[largest_patch(flat[:, :2])]
    to_origin, size = trimesh.bounds.oriented_bounds_2D(patch[:, :2])
    turn = np.eye(3)
    turn[:2, :2] = to_origin[:2, :2]
    view = turn @ rotation @ forward
    quarter = round(np.arctan2(view[1], view[0]) / (np.pi / 2))
    c, s = [(1, 0), (0, 1), (-1, 0), (0, -1)][quarter % 4]
    axes = np.array(((c, s, 0), (-s, c, 0), (0, 0, 1))) @ turn @ rotation  # rows: the table's axes in the world
    size = np.asarray(size)[::-1] if quarter % 2 else np.asarray(size)
    middle = np.append(np.linalg.inv(to_origin)[:2, 2], patch[:, 2].mean()) @ rotation
    rotation_ew = axes if up is None else rotation_with_up(up, axes[0])
    pose_ew = np.eye(4)
    pose_ew[:3, :3], pose_ew[:3, 3] = rotation_ew, (0, 0, height) - rotation_ew @ middle
    tilt = 0.0 if up is None else float(np.degrees(np.arccos(np.clip(normal @ up, -1, 1))))
    residual = float(np.sqrt(np.mean((patch[:, 2] - patch[:, 2].mean()) ** 2)))
    return Table(pose_ew, np.array((0.0, 0.0, height)), rotation_ew @ axes.T, size, tilt, residual)


def rotation_with_up(up: np.ndarray, forward: np.ndarray | None = None) -> np.ndarray:
    """The rotation that takes ``up`` to z, and ``forward`` into the half plane of x, as nearly as that allows."""
    y = np.cross(up, np.eye(3)[np.abs(up).argmin()] if forward is None else forward)
    y /= np.linalg.norm(y)
    return np.stack((np.cross(y, up), y, up))


def largest_patch(points: np.ndarray, cell: float = 0.03) -> np.ndarray:
    """Which points of a plane belong to its largest connected patch, shapes (P, 2) -> (P,), bool."""
    from scipy.ndimage import binary_closing, label

    index = ((points - points.min(0)) / cell).astype(int) + 3
    counts = np.zeros(index.max(0) + 4, int)
    np.add.at(counts, tuple(index.T), 1)
    solid = binary_closing(counts >= 2, iterations=2)
    numbered: np.ndarray = label(solid)[0]  # pyright: ignore[reportAssignmentType, reportIndexIssue]
    patches = numbered[tuple(index.T)].astype(int)
    sizes = np.bincount(patches)
    sizes[0] = 0
    return patches == sizes.argmax()
