"""Colliders of a solid: one primitive where it fits, else the convex hulls of CoACD, each a collider of its own."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import trimesh
from scipy.spatial import QhullError

from scaffoldlab.errors import ScaffoldError
from scaffoldlab.files import cache_folder, write_atomic
from scaffoldlab.scan.objects.inertia import inertia_of
from scaffoldlab.scan.objects.rays import distances, inside_of, sample_inside
from scaffoldlab.scan.objects.solid import Solid, decimate

MOST_HULLS, MOST_HULL_VERTICES, COACD_FACES = 32, 64, 20_000
FRAME_FACES = 1000
"""Faces of the hull whose oriented box is looked for at most."""
SLIVER = 1e-10
"""A hull of less volume is what CoACD has cut off, and no collider [m^3]."""
VOLUME_BOUND, DISTANCE_BOUND = 0.04, 0.02
"""A primitive fits when its volume is off by less, and 95 % of the surface by less of the object's size."""


@dataclass(frozen=True, eq=False)
class Part:
    """One convex collider in the frame of the object.

    Attributes:
        shape: Kind of collider.
        mesh: Its surface, for a primitive a fine approximation [m].
        size: Edge lengths of a box, shape (3,), or radius and length of a cylinder, or radius of a sphere [m].
        pose: Primitive to object frame, shape (4, 4).
    """

    shape: Literal["box", "sphere", "cylinder", "convex"]
    mesh: trimesh.Trimesh
    size: tuple[float, ...] = ()
    pose: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Colliders:
    """The colliders of an object, and how good they are.

    Attributes:
        parts: Convex parts.
        volume_error: (volume of their union - volume of the solid) / volume of the solid.
        concavity_kept: Share of the room between the solid and its convex hull that they leave free; 1 for a convex
            solid.
    """

    parts: list[Part]
    volume_error: float
    concavity_kept: float

    @property
    def kind(self) -> str:
        """``box``, ``sphere``, ``cylinder``, or ``hulls``."""
        return "hulls" if self.parts[0].shape == "convex" else self.parts[0].shape


def make_colliders(
    solid: Solid, *, threshold: float = 0.03, timeout: float = 120.0, cache: Path | None = None, primitives: bool = True
) -> Colliders:
    """The simplest colliders that fit.

    Args:
        solid: The object [m].
        threshold: Concavity that CoACD leaves in a part, as a share of the size; less gives more hulls.
        timeout: Time for CoACD [s].
        cache: Folder of earlier decompositions.
        primitives: Whether a primitive may stand for the object.

    Raises:
        ScaffoldError: CoACD failed or took too long.
    """
    volume = inertia_of(solid).volume
    part = best_primitive(solid.mesh, volume) if primitives else None
    parts = [part] if part else [Part("convex", hull) for hull in _hulls(solid.mesh, threshold, timeout, cache)]
    return Colliders(parts, *_quality(solid, parts, volume))


def _quality(solid: Solid, parts: list[Part], volume: float) -> tuple[float, float]:
    hull = solid.mesh.convex_hull
    within, cell = sample_inside(hull)
    covered = np.zeros(len(within), bool)
    for part in parts:
        covered |= inside_of(part.mesh, within)
    hollow = ~inside_of(solid.mesh, within)
    # Parts may stick out of the hull a little; only what is inside of it is counted, on the grid that counts the rest.
    filled = float((~hollow).sum()) * cell
    kept = float((hollow & ~covered).sum()) / max(1, int(hollow.sum()))
    nearly_convex = hull.volume - volume < VOLUME_BOUND * volume
    return float(covered.sum()) * cell / filled - 1, 1.0 if nearly_convex else kept


# --- primitives -----------------------------------------------------------------------------------------------------


def best_primitive(mesh: trimesh.Trimesh, volume: float) -> Part | None:
    """The box, cylinder or sphere that is the object within the bounds, or None.

    Args:
        mesh: Surface [m].
        volume: Its volume [m^3].
    """
    # Of a hull of many faces the box takes minutes.
    frame = np.array(decimate(mesh.convex_hull, FRAME_FACES).bounding_box_oriented.primitive.transform)
    candidates = (_box(mesh, frame), *_cylinders(mesh, frame), _sphere(mesh))
    fits = [part for part in candidates if _fits(part, mesh, volume)]
    return min(fits, key=lambda part: abs(part.mesh.volume - volume), default=None)


def _fits(part: Part, mesh: trimesh.Trimesh, volume: float) -> bool:
    if abs(part.mesh.volume / volume - 1) > VOLUME_BOUND:
        return False
    size = float(mesh.extents.max())
    for a, b in ((mesh, part.mesh), (part.mesh, mesh)):
        points = trimesh.sample.sample_surface(a, 2000, seed=0)[0]
        distance = np.abs(trimesh.proximity.closest_point(b, points)[1]) if len(b.faces) < 500 else distances(b, points)
        if np.quantile(distance, 0.95) > DISTANCE_BOUND * size:
            return False
    return True


def _box(mesh: trimesh.Trimesh, frame: np.ndarray) -> Part:
    low, high = _sides(mesh.copy().apply_transform(np.linalg.inv(frame)))
    pose = frame @ trimesh.transformations.translation_matrix((low + high) / 2)
    surface = trimesh.creation.box(high - low).apply_transform(pose)
    return Part("box", surface, tuple(map(float, high - low)), pose)


def _sides(mesh: trimesh.Trimesh) -> np.ndarray:
    """Where the sides are that look along the axes, not their bumps, shape (2, 3) [m]."""
    sides = np.array(mesh.bounds)
    for k, sign in enumerate((-1, 1)):
        for axis in range(3):
            there = sign * mesh.face_normals[:, axis] > 0.8
            # Of a slope or a step, which the median does not stand for, the outermost part counts.
            there &= np.abs(mesh.triangles_center[:, axis] - sides[k, axis]) < 0.1 * np.ptp(mesh.bounds[:, axis])
            if there.any():
                sides[k, axis] = _median(mesh.triangles_center[there, axis], mesh.area_faces[there])
    return sides


def _median(values: np.ndarray, weights: np.ndarray) -> float:
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    return float(values[order[np.searchsorted(total, total[-1] / 2)]])


def _sphere(mesh: trimesh.Trimesh) -> Part:
    # Least squares: |p|^2 = 2 c p + (r^2 - |c|^2).
    points = trimesh.sample.sample_surface(mesh, 2000, seed=0)[0]
    answer = np.linalg.lstsq(np.c_[2 * points, np.ones(len(points))], (points**2).sum(1))[0]
    center = answer[:3]
    radius = float(np.sqrt(answer[3] + center @ center))
    pose = trimesh.transformations.translation_matrix(center)
    return Part("sphere", trimesh.creation.icosphere(4, radius).apply_transform(pose), (radius,), pose)


def _cylinders(mesh: trimesh.Trimesh, frame: np.ndarray) -> list[Part]:
    """Upright along each axis of the oriented box; the radius is that of half of the wall."""
    local = mesh.copy().apply_transform(np.linalg.inv(frame))
    sides, bounds = _sides(local), local.bounds
    parts = []
    for axis in range(3):
        others = [i for i in range(3) if i != axis]
        extents = np.ptp(bounds, axis=0)[others]
        wall = np.abs(local.face_normals[:, axis]) < 0.5
        if np.ptp(extents) > 0.1 * extents.max() or not wall.any():
            continue
        middle = bounds.mean(0)
        middle[axis] = sides[:, axis].mean()
        # The middle of a facet is nearer to the axis than its edges; the root mean square is that of its outline.
        flat = local.triangles[wall][:, :, others] - middle[others]
        away = np.sqrt(np.einsum("fij,fij->f", flat, flat) / 3)
        radius, length = _median(away, local.area_faces[wall]), float(np.ptp(sides[:, axis]))
        turn = trimesh.geometry.align_vectors([0, 0, 1], np.eye(3)[axis])
        pose = frame @ trimesh.transformations.translation_matrix(middle) @ turn
        surface = trimesh.creation.cylinder(radius, length, sections=96).apply_transform(pose)
        parts.append(Part("cylinder", surface, (radius, length), pose))
    return parts


# --- hulls ----------------------------------------------------------------------------------------------------------


def _hulls(mesh: trimesh.Trimesh, threshold: float, timeout: float, cache: Path | None) -> list[trimesh.Trimesh]:
    mesh = decimate(mesh, COACD_FACES)
    settings = f"coacd {threshold:g} {MOST_HULLS}"
    digest = hashlib.sha256(settings.encode())
    for array in (mesh.vertices.astype(np.float32), mesh.faces.astype(np.int32)):
        digest.update(np.ascontiguousarray(array).tobytes())
    folder = cache or cache_folder() / "scan"
    path = folder / f"hulls-{digest.hexdigest()[:24]}.npz"
    with contextlib.suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):  # none yet, or a broken one
        return _read_hulls(path)
    with tempfile.TemporaryDirectory() as temporary:
        data = _decompose(mesh, threshold, timeout, Path(temporary))
    with contextlib.suppress(ScaffoldError):  # what cannot be kept is made anew next time
        write_atomic(path, data)
    return _read_hulls(io.BytesIO(data))


def _read_hulls(file: Path | io.BytesIO) -> list[trimesh.Trimesh]:
    with np.load(file) as data:
        clouds = [data[f"points_{i}"] for i in range(int(data["count"]))]
    hulls = []
    for points in clouds:
        with contextlib.suppress(QhullError):
            hull = trimesh.convex.convex_hull(points)
            if hull.volume > SLIVER:
                hulls.append(_few_corners(hull))
    if not hulls:
        raise ScaffoldError("collider: CoACD found nothing but slivers. Try --collider-threshold 0.1.")
    return hulls


def _few_corners(hull: trimesh.Trimesh) -> trimesh.Trimesh:
    """A hull as engines take it. Of a round one, fewer corners span less by a tenth: it grows by what is missing."""
    few, count = hull, MOST_HULL_VERTICES
    while len(few.vertices) > MOST_HULL_VERTICES:
        few = decimate(hull, 2 * count - 4).convex_hull
        count -= 4
    growth = np.cbrt(hull.volume / few.volume)
    few.vertices = few.center_mass + growth * (few.vertices - few.center_mass)
    return few


def _decompose(mesh: trimesh.Trimesh, threshold: float, timeout: float, folder: Path) -> bytes:
    """Runs CoACD in a process of its own: it can crash or take forever on a bad mesh."""
    source, target = folder / "mesh.npz", folder / "hulls.npz"
    np.savez(source, vertices=mesh.vertices, faces=mesh.faces)
    command = [sys.executable, "-m", "scaffoldlab.scan.objects.coacd", str(source), str(target), str(threshold)]
    # Its threads spin while they wait, which costs minutes on a busy machine.
    environment = os.environ | {"OMP_WAIT_POLICY": "passive"}

    def run(remesh: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, remesh], capture_output=True, text=True, timeout=timeout, env=environment)

    try:
        # Its remeshing thickens thin walls, so that it is left to surfaces that need it: those that are open, and those
        # that it fails on without, as on some that cross themselves.
        done = run("off" if mesh.is_watertight else "on")
        if done.returncode and mesh.is_watertight:
            done = run("on")
    except subprocess.TimeoutExpired:
        raise ScaffoldError(
            f"collider: CoACD did not finish within {timeout:g} s on {len(mesh.faces)} faces. Give it more with "
            "--collider-timeout, or ask for less detail with --collider-threshold 0.1."
        ) from None
    if done.returncode or not target.is_file():
        words = " ".join(done.stderr.split()[-30:])
        raise ScaffoldError(f"collider: CoACD ended with {done.returncode}: {words}. Try --collider-threshold 0.1.")
    return target.read_bytes()
