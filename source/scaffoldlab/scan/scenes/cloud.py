"""Reads a point cloud that takes the place of depth images."""

import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scaffoldlab.errors import ScaffoldError
from scaffoldlab.scan.o3d import open3d
from scaffoldlab.scan.scenes.background import Background

if TYPE_CHECKING:
    from open3d.geometry import PointCloud

CLOUDS = (".ply", ".pcd", ".xyz", ".npz")
POINTS, COLORS, NORMALS = ("points", "xyz", "pc", "pcd", "vertices", "arr_0"), ("colors", "rgb"), ("normals",)
"""Names that the arrays of a ``.npz`` go by."""


def read_cloud(path: Path, *, seen_from: np.ndarray | None = None) -> Background:
    """A point cloud file, or the points of a mesh file, in metres.

    Args:
        path: A ``.ply``, ``.pcd``, ``.xyz`` or ``.npz`` file; the last with ``points``, shape (P, 3), and perhaps
            ``colors``, in 0..1 or 0..255, and ``normals``, alike.
        seen_from: Where it was scanned from, shape (3,), to tell the outside of a surface; else from high above.

    Raises:
        ScaffoldError: Not such a file, or fewer than 100 finite points.
    """
    if not path.is_file() or path.suffix.lower() not in CLOUDS:
        raise ScaffoldError(f"{path}: no point cloud; allowed: a file that ends in {', '.join(CLOUDS)}, in metres.")
    o3d = open3d()
    cloud = _read_npz(path) if path.suffix.lower() == ".npz" else o3d.io.read_point_cloud(str(path))
    cloud = cloud.remove_non_finite_points()
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


def _read_npz(path: Path) -> "PointCloud":
    try:
        with np.load(path, allow_pickle=False) as file:
            kinds = {"points": POINTS, "colors": COLORS, "normals": NORMALS}
            found = {kind: next((name for name in names if name in file), None) for kind, names in kinds.items()}
            arrays = {kind: file[name] for kind, name in found.items() if name is not None}
            got = ", ".join(f"{name} {file[name].shape}" for name in file) or "nothing"
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ScaffoldError(f"{path}: no .npz file of NumPy arrays ({error}). Export the cloud again.") from None
    wanted = (len(arrays["points"]), 3) if arrays.get("points", np.zeros(())).ndim == 2 else None
    if any(array.shape != wanted or array.dtype.kind not in "fiu" for array in arrays.values()) or not wanted:
        raise ScaffoldError(
            f"{path}: holds {got}; allowed: {POINTS[0]}, shape (P, 3), and perhaps {COLORS[0]} and {NORMALS[0]} of the "
            "same shape. Save it with numpy.savez(path, points=points)."
        )
    if "colors" in arrays and (arrays["colors"].dtype.kind != "f" or arrays["colors"].max(initial=0) > 1):
        arrays["colors"] = arrays["colors"] / 255
    o3d = open3d()
    cloud = o3d.geometry.PointCloud()
    for kind, array in arrays.items():
        setattr(cloud, kind, o3d.utility.Vector3dVector(array.astype(float)))
    return cloud
