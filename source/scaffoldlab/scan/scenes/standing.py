"""Stands the placed objects on the table, on boards and on each other, or says why they cannot stand."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.spatial import ConvexHull
from scipy.spatial.transform import Rotation

from scaffoldlab.errors import ScaffoldError
from scaffoldlab.scan.scenes.placement import Placement, mesh_of
from scaffoldlab.scan.scenes.solids import Solids
from scaffoldlab.scan.scenes.support import Table
from scaffoldlab.usd.reader import collider_points

SINK_MAX = 0.02
"""How deep in what it stands on an object may be placed [m]; it is lifted."""
FLOAT_MAX = 0.10
"""How high above everything an object may be placed [m]."""
FLOAT_OK = 0.01
"""Up to this gap below it an object is lowered [m]; above there is a warning."""
CLEARANCE = 0.001
"""Air that is left below an object [m]: PhysX throws up what it finds touching at the start."""
SEAT_MAX_DEG = 5.0
"""By how much an object is turned to stand flat [deg]."""


def set_down(
    placements: Sequence[Placement], files: Mapping[str, Path], table: Table, solids: Solids
) -> list[Placement]:
    """The objects in the env frame, each standing flat on what is closely below it.

    Args:
        placements: In the capture's world.
        files: USD file of each object.
        table: The table.
        solids: What else is solid.

    Raises:
        ScaffoldError: An object is under the table, beside it, or in the air.
    """
    moved = [replace(p, pose=table.pose_ew @ p.pose) for p in placements]
    points = {p.name: _moved(_solid_points(files[p.name]), p.pose) for p in moved}
    below = [solid.corners_e for solid in solids.solids]
    done: dict[str, Placement] = {}
    for placement in sorted(moved, key=lambda p: table.above(points[p.name]).min()):
        name = placement.name
        top = _top_below(name, points[name], table, below)
        done[name] = _stood(placement, _solid_points(files[name]), table, top)
        below.append(_moved(_solid_points(files[name]), done[name].pose))
    return [done[p.name] for p in placements]


def _top_below(name: str, points: np.ndarray, table: Table, below: Iterable[np.ndarray]) -> float:
    """Height over the table of what is below an object [m].

    Raises:
        ScaffoldError: It is under the table, or there is nothing closely below it.
    """
    height = table.above(points)
    low = float(height.min())
    if low < -SINK_MAX and table.beside(points.mean(0)) < 0.05:
        raise ScaffoldError(
            f"scan scene: {name!r} is under the table: its lowest point is {-100 * low:.1f} cm below the table's top; "
            f"allowed: {100 * SINK_MAX:.0f} cm. Check its poses (was it tracked with the mesh of this object, in "
            "metres, and in its frame?) and the direction of --up."
        )
    tops = [0.0] if table.beside(points[height.argmin()]) < 0.01 else []
    tops += [float(table.above(other).max()) for other in below if _overlap(points, other)]
    # What it reaches into by less than SINK_MAX carries it; what it reaches into further stands beside it.
    top = max((top for top in tops if top < low + SINK_MAX), default=-np.inf)
    if low - top > FLOAT_MAX:
        held = f"a gap of {100 * (low - top):.0f} cm" if np.isfinite(top) else "nothing at all"
        raise ScaffoldError(
            f"scan scene: {name!r} is in the air: its lowest point is {100 * low:.0f} cm above the table with {held} "
            f"below it; allowed: {100 * FLOAT_MAX:.0f} cm. Check its poses (was it tracked with the mesh of this "
            "object, in metres?), or leave it out with --without."
        )
    return top


def _stood(placement: Placement, points_b: np.ndarray, table: Table, top: float) -> Placement:
    """The object turned flat and moved up or down onto a height over the table, if it is near it."""
    up, pose = table.rotation_eb[:, 2], placement.pose.copy()
    gap = float(table.above(_moved(points_b, pose)).min()) - top
    if gap > FLOAT_OK:
        return replace(placement, gap=gap)
    turn = seating_turn(points_b, pose[:3, :3], up)
    center = _moved(points_b.mean(0)[None], pose)[0]
    pose[:3, 3] = center + turn.apply(pose[:3, 3] - center)
    pose[:3, :3] = turn.as_matrix() @ pose[:3, :3]
    lift = top + CLEARANCE - float(table.above(_moved(points_b, pose)).min())
    pose[:3, 3] += lift * up
    return replace(placement, pose=pose, lifted=lift, turned_deg=float(np.degrees(turn.magnitude())))


def seating_turn(points_b: np.ndarray, rotation: np.ndarray, up: np.ndarray) -> Rotation:
    """The smallest turn after which a body stands flat, on a side of its hull that carries its middle.

    Args:
        points_b: Points whose hull is the body's [m], shape (P, 3).
        rotation: Body to world, shape (3, 3).
        up: Direction against gravity in the world, shape (3,).

    Returns:
        The turn in the world; none if no side is within SEAT_MAX_DEG.
    """
    hull = ConvexHull(points_b)
    downs = hull.equations[:, :3]
    angles = np.degrees(np.arccos(np.clip(downs @ rotation.T @ -up, -1, 1)))
    middle = points_b[hull.vertices].mean(0)
    for side in np.argsort(angles):
        if angles[side] > SEAT_MAX_DEG:
            break
        if _carries(points_b, downs[side], middle):
            return Rotation.align_vectors([-up], [rotation @ downs[side]])[0]
    return Rotation.identity()


def _carries(points_b: np.ndarray, down: np.ndarray, middle: np.ndarray) -> bool:
    """Whether a body that rests on its lowest points does not tip over: its middle is above them."""
    depth = points_b @ down
    across = np.linalg.svd(down[None])[2][1:]
    feet = points_b[depth > depth.max() - 5e-4] @ across.T
    if len(feet) < 3 or np.linalg.matrix_rank(feet - feet[0], tol=1e-5) < 2:
        return False
    edges = ConvexHull(feet).equations
    return bool((edges[:, :2] @ (across @ middle) + edges[:, 2] < 0).all())


def _solid_points(path: Path) -> np.ndarray:
    """Points of what the engines see of an object, or of its visible mesh without colliders, shape (P, 3) [m]."""
    points = collider_points(path)
    return points if len(points) else mesh_of(path).vertices


def _moved(points: np.ndarray, pose: np.ndarray) -> np.ndarray:
    return points @ pose[:3, :3].T + pose[:3, 3]


def _overlap(points: np.ndarray, other: np.ndarray) -> bool:
    """Whether two bodies are above one another, by their bounds over ground."""
    low, high = points[:, :2].min(0), points[:, :2].max(0)
    return bool((other[:, :2].max(0) > low).all() and (other[:, :2].min(0) < high).all())
