"""Finds what else is solid on a table: boards, walls and blocks, all convex, from the points that stand above it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import trimesh

from scaffoldlab.scan.o3d import open3d
from scaffoldlab.scan.scenes.background import Background
from scaffoldlab.scan.scenes.support import Table, largest_patch, rotation_with_up

POINTS_MIN = 15
"""Points of a cluster, one a cubic centimetre, that are something rather than noise."""


@dataclass(frozen=True)
class Solid:
    """A convex piece of the background.

    Attributes:
        kind: A board (flat and level), a wall (flat and upright), or a block of any convex shape.
        corners_e: Its corners in the env frame [m], shape (V, 3).
    """

    kind: Literal["board", "wall", "block"]
    corners_e: np.ndarray

    @property
    def hull(self) -> trimesh.Trimesh:
        """The solid as a mesh, in the env frame."""
        return trimesh.convex.convex_hull(self.corners_e)


@dataclass(frozen=True)
class Solids:
    """What else is solid near the table.

    Attributes:
        solids: The convex pieces, largest first.
        dropped: Clusters of points that were too small to be anything.
    """

    solids: list[Solid]
    dropped: int


def find_solids(
    background: Background,
    table: Table,
    *,
    clearance: float = 0.015,
    margin: float = 0.15,
    reach: float = 1.0,
    smallest: float = 0.04,
) -> Solids:
    """Convex solids for the points that stand above the table or just beside it.

    A cluster of points that is convex becomes its hull. Others are taken apart into flat boards and walls, as a shelf
    is, and hulls of what remains.

    Args:
        background: In the env frame.
        table: The table.
        clearance: Points lower than this above the table are the table [m].
        margin: How far beside the table's edges is looked [m].
        reach: How far above the table is looked [m].
        smallest: Clusters with a diagonal below this are dropped [m].
    """
    height = table.above(background.points)
    near = (height > clearance) & (height < reach) & (table.beside(background.points) < margin)
    points, normals = _thinned(background.points[near], background.normals[near])
    solids: list[Solid] = []
    dropped = 0
    for cluster in _clusters(points):
        if len(cluster) < POINTS_MIN or np.linalg.norm(np.ptp(points[cluster], axis=0)) < smallest:
            dropped += 1
            continue
        solids += [_grounded(piece, table, 2 * clearance) for piece in _pieces(points[cluster], normals[cluster])]
    return Solids(sorted(solids, key=lambda solid: -solid.hull.volume), dropped)


def _grounded(solid: Solid, table: Table, clearance: float) -> Solid:
    """A solid that ends just above the table goes on down to it: the points in between were taken for the table's."""
    height = table.above(solid.corners_e)
    low = height < clearance
    if not low.any():
        return solid
    feet = solid.corners_e[low] - height[low, None] * table.rotation_eb[:, 2]
    return Solid(solid.kind, np.concatenate((solid.corners_e, feet)))


def _thinned(points: np.ndarray, normals: np.ndarray, voxel: float = 0.01) -> tuple[np.ndarray, np.ndarray]:
    """One point for each occupied voxel."""
    o3d = open3d()
    cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(points))
    cloud.normals = o3d.utility.Vector3dVector(normals)
    cloud = cloud.voxel_down_sample(voxel)
    return np.asarray(cloud.points), np.asarray(cloud.normals)


def _clusters(points: np.ndarray, gap: float = 0.025) -> list[np.ndarray]:
    """Indices of points that hang together (DBSCAN), largest first; points on their own belong to none."""
    if not len(points):
        return []
    o3d = open3d()
    cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(points))
    labels = np.asarray(cloud.cluster_dbscan(gap, 5))
    clusters = [np.flatnonzero(labels == k) for k in range(labels.max() + 1)]
    return sorted(clusters, key=len, reverse=True)


def _pieces(points: np.ndarray, normals: np.ndarray) -> Sequence[Solid]:
    """A cluster as convex pieces, shapes (P, 3) and (P, 3)."""
    if len(points) < POINTS_MIN:
        return []
    if _spread(points) < 0.002:
        return [_board(points, normals)]
    hull = trimesh.convex.convex_hull(points)
    if _is_convex(points, hull):
        return [_block(hull)]
    nothing = np.zeros(3), np.zeros(len(points), bool)
    normal, flat = max(_flat_parts(points, normals), key=lambda part: part[1].sum(), default=nothing)
    if flat.sum() < max(30, 0.1 * len(points)):
        return _halves(points, normals, hull)
    patch = largest_patch((points[flat] @ rotation_with_up(normal).T)[:, :2])
    taken = np.flatnonzero(flat)[patch]
    board = _board(points[taken], normals[taken])
    rest = _inside(board.hull, points) < -0.012  # what clings to the board is a part of it
    rest[taken] = False
    if rest.sum() == len(points):
        return [_block(hull)]
    return [board, *_parts(points[rest], normals[rest])]


def _is_convex(points: np.ndarray, hull: trimesh.Trimesh) -> bool:
    """Whether nearly all points are on their hull, and its top, which cameras see, is covered by points."""
    from scipy.spatial import cKDTree

    some = points[:: max(1, len(points) // 400)]
    if np.mean(_inside(hull, some) < 0.015) < 0.9:
        return False
    tops = hull.face_normals[:, 2] > 0.7
    if not tops.any():
        return True
    top = trimesh.sample.sample_surface(hull.submesh([tops], append=True), 200, seed=0)[0]
    return bool(np.mean(cKDTree(points).query(top)[0] < 0.025) > 0.7)


def _parts(points: np.ndarray, normals: np.ndarray) -> list[Solid]:
    """The pieces of each cluster of some points."""
    return [piece for cluster in _clusters(points) for piece in _pieces(points[cluster], normals[cluster])]


def _halves(points: np.ndarray, normals: np.ndarray, hull: trimesh.Trimesh) -> Sequence[Solid]:
    """A hollow shape without flat sides, cut across its longest side until its pieces are small."""
    axis = int(np.ptp(points, axis=0).argmax())
    if np.ptp(points[:, axis]) < 0.08:
        return [_block(hull)]
    left = points[:, axis] < (points[:, axis].min() + points[:, axis].max()) / 2
    return [*_parts(points[left], normals[left]), *_parts(points[~left], normals[~left])]


def _inside(hull: trimesh.Trimesh, points: np.ndarray) -> np.ndarray:
    """How deep points are below the surface of a convex mesh [m], negative outside, shape (P, 3) -> (P,)."""
    offsets = (hull.face_normals * hull.triangles[:, 0]).sum(-1)
    return (offsets - points @ hull.face_normals.T).min(-1)


def _block(hull: trimesh.Trimesh) -> Solid:
    """A convex cluster: a board if it is flat and level, else a block."""
    length, width, height = hull.extents
    return Solid("board" if height < 0.3 * min(length, width) else "block", np.asarray(hull.vertices))


def _flat_parts(points: np.ndarray, normals: np.ndarray):
    """Level or upright planes of a cluster: normal, and which points are on them and face along them."""
    o3d = open3d()
    o3d.utility.random.seed(0)
    left = np.arange(len(points))
    for _ in range(4):
        if len(left) < 30:
            return
        cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(points[left]))
        plane, inliers = cloud.segment_plane(0.01, 3, 400)
        normal, offset = np.array(plane[:3]), plane[3]
        if abs(normal[2]) > 0.94 or abs(normal[2]) < 0.34:  # within 20 deg of level or upright
            # Both faces of a thin board count, and those of one that stands across it do not.
            flat = (np.abs(points @ normal + offset) < 0.03) & (np.abs(normals @ normal) > 0.8)
            yield normal, flat
        left = np.delete(left, inliers)


def _spread(points: np.ndarray) -> float:
    """Standard deviation of points across their flattest direction [m]."""
    middle = points - points.mean(0)
    return float(np.sqrt(np.linalg.eigvalsh(middle.T @ middle / len(points))[0]))


def _board(points: np.ndarray, normals: np.ndarray, thinnest: float = 0.01) -> Solid:
    """A flat box around points of one or both faces; where only one was seen, it lies behind it."""
    middle = points.mean(0)
    normal = np.linalg.svd(points - middle, full_matrices=False)[2][2]
    normal = normal if (normals @ normal).mean() >= 0 else -normal
    rotation = rotation_with_up(normal)
    local = points @ rotation.T
    to_origin, size = trimesh.bounds.oriented_bounds_2D(local[:, :2])
    low, high = np.percentile(local[:, 2], (2, 98))
    low = min(low, high - thinnest)
    square = np.array(((-1, -1), (1, -1), (1, 1), (-1, 1))) * np.asarray(size) / 2
    inverse = np.linalg.inv(to_origin)
    square = square @ inverse[:2, :2].T + inverse[:2, 2]
    corners = np.concatenate([np.column_stack((square, np.full(4, z))) for z in (low, high)])
    kind = "board" if abs(normal[2]) > 0.7 else "wall"
    return Solid(kind, corners @ rotation)
