"""The part of a scene that does not move, as points with normals and colours, and as a coloured mesh."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scaffoldlab.errors import ScaffoldError
from scaffoldlab.scan.o3d import open3d

CLOUDS = (".ply", ".pcd", ".xyz")


@dataclass(frozen=True)
class Background:
    """What stays when the objects are taken away.

    Attributes:
        points: Points on its surface [m], shape (P, 3).
        normals: Unit normals, towards where it was seen from, shape (P, 3).
        colors: RGB in 0..1, shape (P, 3).
        faces: Points of each triangle, shape (F, 3); none if it came as points.
    """

    points: np.ndarray
    normals: np.ndarray
    colors: np.ndarray
    faces: np.ndarray

    def moved(self, pose: np.ndarray) -> "Background":
        """The same in another frame: ``pose`` maps this one to it, shape (4, 4)."""
        rotation = pose[:3, :3].T
        return Background(self.points @ rotation + pose[:3, 3], self.normals @ rotation, self.colors, self.faces)

    def part(self, keep: np.ndarray) -> "Background":
        """Only some points, and the triangles between them; shape (P,), bool."""
        index = np.cumsum(keep) - 1
        faces = index[self.faces[keep[self.faces].all(-1)]] if len(self.faces) else self.faces
        return Background(self.points[keep], self.normals[keep], self.colors[keep], faces)


def read_cloud(path: Path, *, seen_from: np.ndarray | None = None) -> Background:
    """A point cloud file, or the points of a mesh file, in metres.

    Args:
        path: A ``.ply``, ``.pcd`` or ``.xyz`` file.
        seen_from: Where it was scanned from, shape (3,), to tell the outside of a surface; else from high above.

    Raises:
        ScaffoldError: Not such a file, or fewer than 100 finite points.
    """
    if not path.is_file() or path.suffix.lower() not in CLOUDS:
        raise ScaffoldError(f"{path}: no point cloud; allowed: a file that ends in {', '.join(CLOUDS)}, in metres.")
    o3d = open3d()
    cloud = o3d.io.read_point_cloud(str(path), remove_nan_points=True, remove_infinite_points=True)
    if len(cloud.points) < 100:
        raise ScaffoldError(
            f"{path}: {len(cloud.points)} finite points; at least 100 are needed. Export the cloud again, as ply."
        )
    if not cloud.has_normals():
        cloud.estimate_normals(o3d.geometry.KDTreeSearchParamHybrid(radius=0.03, max_nn=30))
    points, normals = np.asarray(cloud.points), np.asarray(cloud.normals).copy()
    if seen_from is not None:
        normals[((seen_from - points) * normals).sum(-1) < 0] *= -1
    colors = np.asarray(cloud.colors) if cloud.has_colors() else np.full(points.shape, 0.6)
    return Background(points.copy(), normals, colors.copy(), np.empty((0, 3), int))
