"""Keypoint candidates of a scene (IKER, section III-B): extremities of what moves, a grid over what does not."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import trimesh
import yaml

from scaffoldlab.errors import ScaffoldError
from scaffoldlab.scan.o3d import open3d
from scaffoldlab.scan.scenes.placement import Placement, mesh_of
from scaffoldlab.scan.scenes.solids import Solids
from scaffoldlab.scan.scenes.support import Table
from scaffoldlab.specs.models import KeypointSpec

GRID = 0.20
"""Distance between keypoints on a surface, at most [m]."""
RIM = 0.05
"""Distance of keypoints from the edges of a surface, and from what lies on it [m]."""


def object_keypoints(name: str, path: Path) -> list[KeypointSpec]:
    """The middle of an object, and the points in ``NAME.yaml`` beside its file, else its extremities.

    Raises:
        ScaffoldError: The YAML file does not hold ``keypoints: {name: [x, y, z]}``.
    """
    mesh, beside = mesh_of(path), path.with_suffix(".yaml")
    points = read_keypoints(beside) if beside.is_file() else extremities(mesh)
    named = {name: mesh.bounds.mean(0)} | {f"{name} {label}": point for label, point in points.items()}
    return [_keypoint(label, name, point) for label, point in named.items()]


def read_keypoints(path: Path) -> dict[str, np.ndarray]:
    """Keypoints of an object by name, body frame [m], shape (3,) each.

    Raises:
        ScaffoldError: The file does not hold ``keypoints: {name: [x, y, z]}``.
    """
    try:
        data = yaml.safe_load(path.read_text())
        points = {str(label): np.asarray(point, float) for label, point in data["keypoints"].items()}
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ScaffoldError(f"{path}: {error}. Allowed: `keypoints: {{name: [x, y, z]}}` in metres.") from None
    for label, point in points.items():
        if point.shape != (3,) or not np.isfinite(point).all():
            raise ScaffoldError(f"{path}: keypoints.{label}: got {point.tolist()}; allowed: [x, y, z] in metres.")
    return points


def extremities(mesh: trimesh.Trimesh) -> dict[str, np.ndarray]:
    """Where the axes through the middle of a mesh leave it: ``+x``, ``-x``, ``+y``, ..., shape (3,) each [m].

    An axis that meets nothing, as that of a ring, has the point of the surface that is nearest to its end.
    """
    scene = open3d().t.geometry.RaycastingScene()
    scene.add_triangles(mesh.vertices.astype(np.float32), mesh.faces.astype(np.uint32))
    middle, half = mesh.bounds.mean(0), np.ptp(mesh.bounds, axis=0) / 2
    axes = np.concatenate((np.eye(3), -np.eye(3)))
    away = np.abs(axes @ half)
    rays = np.concatenate((middle + 2 * away[:, None] * axes, -axes), -1)  # inwards from outside
    travelled = scene.cast_rays(rays.astype(np.float32))["t_hit"].numpy()
    met = np.isfinite(travelled)
    points = middle + np.where(met, 2 * away - travelled, away)[:, None] * axes
    points[~met] = scene.compute_closest_points(points[~met].astype(np.float32))["points"].numpy()
    return {f"{sign}{axis}": points[k] for k, (sign, axis) in enumerate((s, a) for s in "+-" for a in "xyz")}


def static_keypoints(
    body: str, table: Table, solids: Solids, placements: Sequence[Placement], files: Mapping[str, Path]
) -> list[KeypointSpec]:
    """A uniform grid over the table and over every level board, without the points under or close to other things.

    Args:
        body: Static asset of the scene that the points are on; its frame is the env frame.
        table: The table.
        solids: What else is solid.
        placements: The objects in the env frame.
        files: USD file of each object.
    """
    axes, (length, width) = table.rotation_eb, table.size / 2 - RIM
    tops = {"table": [table.center_e + axes[:, :2] @ (x, y) for x in _grid(length) for y in _grid(width)]}
    for number, solid in enumerate(s for s in solids.solids if s.kind == "board"):
        low, high = solid.corners_e.min(0), solid.corners_e.max(0)
        middle, half = (low + high) / 2, np.maximum((high - low) / 2 - RIM, 0)
        points = [(middle[0] + x, middle[1] + y, high[2]) for x in _grid(half[0]) for y in _grid(half[1])]
        tops[f"board {number + 1}"] = [np.array(point) for point in points]
    taken = [solid.corners_e for solid in solids.solids]
    for placement in placements:
        vertices = mesh_of(files[placement.name]).vertices
        taken.append(vertices @ placement.pose[:3, :3].T + placement.pose[:3, 3])
    return [
        _keypoint(f"{surface} {number}", body, point)
        for surface, points in tops.items()
        for number, point in enumerate((p for p in points if not any(_covers(corners, p) for corners in taken)), 1)
    ]


def _grid(half: float) -> np.ndarray:
    """Evenly spread positions in -half..half, at most GRID apart."""
    return np.linspace(-half, half, int(np.ceil(2 * max(half, 0) / GRID)) + 1) if half > 0 else np.zeros(1)


def _covers(corners: np.ndarray, point: np.ndarray) -> bool:
    """Whether a body stands on or close to a point, by its bounds; what hangs 15 cm above it does not."""
    low, high = corners.min(0), corners.max(0)
    beside = np.maximum(low[:2] - point[:2], point[:2] - high[:2]).max()
    return bool(beside < RIM and low[2] < point[2] + 0.15 and high[2] > point[2] + 0.005)


def _keypoint(name: str, body: str, point: np.ndarray) -> KeypointSpec:
    x, y, z = (round(float(value), 4) + 0.0 for value in point)
    return KeypointSpec(name=name, body=body, point=(x, y, z))
