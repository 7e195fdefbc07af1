"""The solid that a scan stands for: one clean surface, its volume, mass, centre and inertia."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import trimesh

from scaffoldlab.errors import ScaffoldError
from scaffoldlab.scan.findings import Finding
from scaffoldlab.scan.library import open3d

MOST_SOLID_FACES = 200_000
"""Faces of the solid; a finer scan is decimated first, its shape changes by less than a scanner errs."""
SMALL_PART, APART = 0.1, 0.02
"""Share of the largest component's area, and distance as a share of its size, that make a component debris."""
THINNEST = 5e-4
"""Below this thickness a mesh is a sheet [m]."""


@dataclass(frozen=True, eq=False)
class Solid:
    """A surface in metres and what was done to it.

    Attributes:
        mesh: Vertices merged by position, faces outwards, without texture.
        findings: What was found and mended.
    """

    mesh: trimesh.Trimesh
    findings: list[Finding]

    @property
    def watertight(self) -> bool:
        """Whether the surface has an inside without doubt."""
        return bool(self.mesh.is_watertight)


def make_solid(vertices: np.ndarray, faces: np.ndarray, where: str) -> Solid:
    """Cleans a surface: broken and double faces and debris go, holes are closed, faces turned outwards.

    Args:
        vertices: Positions [m], shape (V, 3).
        faces: Corners, shape (F, 3).
        where: Name for messages.

    Raises:
        ScaffoldError: Too little is left to be solid.
    """
    findings: list[Finding] = []
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    mesh = _drop_broken(mesh, findings)
    if len(mesh.faces) < 4 or mesh.extents is None or mesh.extents.min() < THINNEST:
        size = "nothing" if mesh.extents is None else " x ".join(f"{1000 * e:.3g}" for e in mesh.extents) + " mm"
        raise ScaffoldError(
            f"{where}: {len(mesh.faces)} usable faces, {size} in all: a sheet or less; allowed: at least "
            f"4 faces and {1000 * THINNEST:g} mm of thickness. Scan the object from all sides, and check --units."
        )
    if len(mesh.faces) > MOST_SOLID_FACES:
        findings.append(
            Finding(
                check="faces", severity="ok", fixed_by=True, seen=f"{len(mesh.faces)}; decimated to {MOST_SOLID_FACES}"
            )
        )
        mesh = decimate(mesh, MOST_SOLID_FACES)
    mesh = _keep_main(mesh, findings)
    mesh = _close(mesh, findings)
    _turn_outwards(mesh, findings)
    return Solid(mesh, findings)


def decimate(mesh: trimesh.Trimesh, count: int) -> trimesh.Trimesh:
    """A new surface with at most ``count`` faces (quadric edge collapse), without texture."""
    if len(mesh.faces) <= count:
        return mesh.copy()
    import fast_simplification

    points, faces = fast_simplification.simplify(
        mesh.vertices.astype(np.float32), mesh.faces.astype(np.int32), target_count=count
    )
    return trimesh.Trimesh(points, faces, process=False)


def _drop_broken(mesh: trimesh.Trimesh, findings: list[Finding]) -> trimesh.Trimesh:
    before = len(mesh.faces)
    finite = np.isfinite(mesh.vertices).all(1)
    mesh.update_faces(finite[mesh.faces].all(1))
    mesh.remove_unreferenced_vertices()
    mesh.merge_vertices(merge_tex=True, merge_norm=True, digits_vertex=7)
    # Slivers without area stay: without them a closed surface has cracks.
    mesh.update_faces(_corners_differ(mesh) & mesh.unique_faces())
    mesh.remove_unreferenced_vertices()
    gone, lost = before - len(mesh.faces), int((~finite).sum())
    if lost or gone > 0.05 * before:
        seen = f"{gone} of {before} faces are degenerate, double or not finite ({lost} vertices are NaN); left out"
        findings.append(Finding(check="faces", severity="warning", seen=seen, fix="Nothing to do", fixed_by=True))
    else:
        findings.append(Finding(check="faces", severity="ok", seen=f"{before}, {gone} of them without area left out"))
    return mesh


def _corners_differ(mesh: trimesh.Trimesh) -> np.ndarray:
    a, b, c = mesh.faces.T
    return (a != b) & (b != c) & (c != a)


def _keep_main(mesh: trimesh.Trimesh, findings: list[Finding]) -> trimesh.Trimesh:
    """The largest component, and those that are large and touch it, as the handle of a mug may."""
    labels = trimesh.graph.connected_component_labels(mesh.face_adjacency, node_count=len(mesh.faces))
    count = int(labels.max()) + 1
    if count == 1:
        findings.append(Finding(check="components", severity="ok", seen="1"))
        return mesh
    areas = np.bincount(labels, weights=mesh.area_faces)
    main = int(areas.argmax())
    gap = APART * float(np.ptp(mesh.triangles[labels == main].reshape(-1, 3), axis=0).max())
    low, high = (getattr(mesh.triangles[labels == main], f)(axis=(0, 1)) for f in ("min", "max"))
    kept = [main]
    for label in np.flatnonzero(areas >= SMALL_PART * areas[main]):
        corners = mesh.triangles[labels == label]
        if label != main and (corners.min((0, 1)) < high + gap).all() and (corners.max((0, 1)) > low - gap).all():
            kept.append(int(label))
    mesh.update_faces(np.isin(labels, kept))
    mesh.remove_unreferenced_vertices()
    share = 1 - areas[kept].sum() / areas.sum()
    seen = f"{count}; kept {len(kept)}, the rest has {100 * share:.1f} % of the area"
    findings.append(
        Finding(
            check="components", severity="warning" if share > 0.05 else "ok", seen=seen, fixed_by=True,
            fix="If a part is missing, connect it in a mesh editor" if share > 0.05 else "",
        )
    )  # fmt: skip
    return mesh


def _close(mesh: trimesh.Trimesh, findings: list[Finding]) -> trimesh.Trimesh:
    """Closes holes; one that is larger than half of the object is left, and told."""
    edges = _open_edges(mesh)
    if not len(edges):
        findings.append(Finding(check="holes", severity="ok", seen="none, the surface is closed"))
        return mesh
    o3d = open3d()
    size = float(mesh.extents.max())
    tensor = o3d.t.geometry.TriangleMesh(
        o3d.core.Tensor(mesh.vertices.astype(np.float32)), o3d.core.Tensor(mesh.faces.astype(np.int32))
    )
    filled = tensor.fill_holes(hole_size=size / 2)
    closed = trimesh.Trimesh(filled.vertex.positions.numpy(), filled.triangle.indices.numpy(), process=False)
    closed.merge_vertices(digits_vertex=7)
    closed.update_faces(_corners_differ(closed) & closed.unique_faces())
    left = _open_edges(closed)
    middle = mesh.vertices[edges].mean((0, 1))
    where = f"{len(edges)} open edges around ({', '.join(f'{c:.3f}' for c in middle)}) m"
    if not len(left):
        findings.append(
            Finding(check="holes", severity="warning", seen=f"{where}; closed", fix="Nothing to do", fixed_by=True)
        )
    else:
        findings.append(
            Finding(
                check="holes", severity="warning", seen=f"{where}; {len(left)} of them could not be closed",
                fix="Mass and volume are estimated from the outside; scan the missing side for exact ones",
            )
        )  # fmt: skip
    return closed


def _open_edges(mesh: trimesh.Trimesh) -> np.ndarray:
    """Edges with one face, shape (E, 2)."""
    single = trimesh.grouping.group_rows(mesh.edges_sorted, require_count=1)
    return mesh.edges_sorted[single]


def _turn_outwards(mesh: trimesh.Trimesh, findings: list[Finding]) -> None:
    consistent, inwards = bool(mesh.is_winding_consistent), mesh.volume < 0
    if not consistent:
        trimesh.repair.fix_normals(mesh, multibody=False)
        inwards = mesh.volume < 0
    if inwards:
        mesh.invert()
    if consistent and not inwards:
        findings.append(Finding(check="normals", severity="ok", seen="outwards"))
        return
    seen = "faces are wound both ways; turned outwards" if not consistent else "the mesh is inside out; turned"
    findings.append(Finding(check="normals", severity="warning", seen=seen, fix="Nothing to do", fixed_by=True))


# --- mass -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Inertia:
    """How heavy an object is, and how it turns.

    Attributes:
        mass: Mass [kg].
        volume: Volume of the solid [m^3].
        center: Centre of mass [m], shape (3,).
        tensor: Inertia about the centre of mass, axes of the mesh [kg m^2], shape (3, 3).
    """

    mass: float
    volume: float
    center: np.ndarray
    tensor: np.ndarray

    def principal(self) -> tuple[np.ndarray, np.ndarray]:
        """Principal moments [kg m^2], shape (3,), and their right-handed axes as columns, shape (3, 3)."""
        moments, axes = np.linalg.eigh(self.tensor)
        if np.linalg.det(axes) < 0:
            axes[:, 2] *= -1
        return moments, axes


def inertia_of(
    solid: Solid, *, density: float = 600.0, mass: float | None = None, wall: float | None = None
) -> Inertia:
    """Mass properties of a solid of uniform density, or of a hollow one.

    Args:
        solid: The object [m].
        density: Density [kg/m^3].
        mass: Mass [kg]; it overrides the density.
        wall: Thickness of the wall of a closed hollow body [m]; None: full.
    """
    volume, center, second = _moments(solid)
    if wall is not None:
        amount, center, second = _shell_moments(solid.mesh, wall)
    else:
        amount = volume
    density = density if mass is None else mass / amount
    about_center = second - amount * np.outer(center, center)
    tensor = density * (np.trace(about_center) * np.eye(3) - about_center)
    return Inertia(density * amount, volume, center, tensor)


def _moments(solid: Solid) -> tuple[float, np.ndarray, np.ndarray]:
    """Volume [m^3], its centre [m] and second moments about the origin [m^5]."""
    mesh = solid.mesh
    if solid.watertight:
        properties = mesh.mass_properties
        volume, center = float(properties.volume), np.array(properties.center_mass)
        inertia = np.array(properties.inertia)  # of density 1, about the centre
        second = 0.5 * np.trace(inertia) * np.eye(3) - inertia + volume * np.outer(center, center)
        return volume, center, second
    inside, cell = sample_inside(mesh)
    volume = len(inside) * cell
    center = inside.mean(0)
    return volume, center, cell * inside.T @ inside


def _shell_moments(mesh: trimesh.Trimesh, wall: float) -> tuple[float, np.ndarray, np.ndarray]:
    """The same of a thin wall along the surface; exact for each flat triangle."""
    a, b, c = mesh.triangles.transpose(1, 0, 2)
    area = mesh.area_faces
    amount = wall * area.sum()
    center = wall * (area[:, None] * (a + b + c) / 3).sum(0) / amount
    total = a + b + c
    outer = [np.einsum("fi,fj->fij", p, p) for p in (a, b, c, total)]
    second = wall * (area[:, None, None] / 12 * sum(outer)).sum(0)
    return float(amount), center, second


def sample_inside(mesh: trimesh.Trimesh, count: int = 80) -> tuple[np.ndarray, float]:
    """Points of a regular grid that are inside a surface, by rays, and the volume each stands for [m^3].

    Args:
        mesh: Surface; small holes do not matter.
        count: Grid cells along the longest side.
    """
    step = float(mesh.extents.max()) / count
    axes = [np.arange(low + step / 2, high, step) for low, high in mesh.bounds.T]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    return grid[inside_of(mesh, grid)], step**3


def inside_of(mesh: trimesh.Trimesh, points: np.ndarray) -> np.ndarray:
    """Whether points are inside a surface, by the majority of three rays, shape (P, 3) -> (P,)."""
    o3d = open3d()
    scene = o3d.t.geometry.RaycastingScene()
    scene.add_triangles(mesh.vertices.astype(np.float32), mesh.faces.astype(np.uint32))
    return scene.compute_occupancy(points.astype(np.float32), nsamples=3).numpy() > 0.5
