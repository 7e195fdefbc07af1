"""The solid that a scan stands for: one clean surface, and the room inside."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import trimesh

from scaffoldlab.errors import ScaffoldError
from scaffoldlab.scan.findings import Finding
from scaffoldlab.scan.o3d import open3d
from scaffoldlab.scan.objects.rays import LINES, Columns, distances, inside_of, miscounted, sample_inside

MOST_SOLID_FACES = 200_000
"""Faces of the solid; a finer scan is decimated first, its shape changes by less than a scanner errs."""
MOST_COLLAPSED_FACES = 500_000
"""Faces that edge collapse starts from at most."""
SMALL_PART, APART = 0.02, 0.02
"""Share of the largest component's area, and distance as a share of its size, that make a component debris."""
HOLLOW = 1e-3
"""What fills less of its convex hull encloses nothing."""
THINNEST = 5e-4
"""Below this thickness a mesh is a sheet [m]."""
FARTHEST = 1e6
"""Coordinates beyond are as broken as NaN [m]."""
MISCOUNTED = 0.03
"""Share of the room that is counted not once where a surface crosses itself, below which nothing is done."""


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
        """Whether the surface has an inside without doubt: it has no edge where it ends."""
        return not len(_open_edges(self.mesh))

    @cached_property
    def excess(self) -> Columns:
        """The room that the signed volume counts too often, as where a surface crosses itself; none if it is little."""
        columns, share = miscounted(self.mesh)
        return columns if share > MISCOUNTED else Columns(np.empty((0, 3)), np.empty(0), np.empty(0))

    def moments(self) -> tuple[float, np.ndarray, np.ndarray]:
        """Volume [m^3], its centre [m], shape (3,), and second moments about the origin [m^5], shape (3, 3)."""
        if not self.watertight:
            inside, cell = sample_inside(self.mesh)
            return len(inside) * cell, inside.mean(0), cell * inside.T @ inside
        properties = self.mesh.mass_properties
        volume, center = float(properties.volume), np.array(properties.center_mass)
        inertia = np.array(properties.inertia)  # of density 1, about the centre
        second = 0.5 * np.trace(inertia) * np.eye(3) - inertia + volume * np.outer(center, center)
        extra, first, extra_second = self.excess.moments()
        return volume - extra, (volume * center - first) / (volume - extra), second - extra_second


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
    _refuse_sheet(mesh, where)
    if len(mesh.faces) > MOST_SOLID_FACES:
        findings.append(
            Finding(
                check="faces", severity="ok", fixed_by=True, seen=f"{len(mesh.faces)}; decimated to {MOST_SOLID_FACES}"
            )
        )
        mesh = decimate(mesh, MOST_SOLID_FACES)
    turned = _wind(mesh)
    mesh = _keep_main(mesh, findings)
    mesh = _close(mesh, findings)
    _turn_outwards(mesh, turned, findings)
    solid = _uncross(Solid(mesh, findings))
    if solid.watertight and (volume := solid.moments()[0]) < HOLLOW * mesh.convex_hull.volume:
        raise ScaffoldError(
            f"{where}: the surface of {len(mesh.faces)} faces encloses {1e6 * volume:.3g} cm3, a sheet; allowed: "
            "at least 4 faces around something. Scan the object from all sides."
        )
    return solid


def _refuse_sheet(mesh: trimesh.Trimesh, where: str) -> None:
    """Stops at what is flat, along whatever plane."""
    sides = np.zeros(3)
    if len(mesh.faces) >= 4:
        _, axes = np.linalg.eigh(np.cov(mesh.vertices.T))
        sides = np.sort(np.ptp(mesh.vertices @ axes, axis=0))[::-1]
    if sides[2] < THINNEST:
        size = " x ".join(f"{1000 * side:.3g}" for side in sides)
        raise ScaffoldError(
            f"{where}: {len(mesh.faces)} usable faces, {size} mm in all: a sheet or less; allowed: at least "
            f"4 faces and {1000 * THINNEST:g} mm of thickness. Scan the object from all sides, and check --units."
        )


def decimate(mesh: trimesh.Trimesh, count: int) -> trimesh.Trimesh:
    """A new surface with at most ``count`` faces (quadric edge collapse), without texture."""
    if len(mesh.faces) <= count:
        return mesh.copy()
    if len(mesh.faces) > 1.2 * MOST_COLLAPSED_FACES > count:
        mesh = _thin_out(mesh, MOST_COLLAPSED_FACES)
    o3d = open3d()
    points, faces = o3d.utility.Vector3dVector(mesh.vertices), o3d.utility.Vector3iVector(mesh.faces)
    simple = o3d.geometry.TriangleMesh(points, faces).simplify_quadric_decimation(count)
    return trimesh.Trimesh(np.asarray(simple.vertices), np.asarray(simple.triangles), process=False)


def _thin_out(mesh: trimesh.Trimesh, count: int) -> trimesh.Trimesh:
    """About ``count`` faces: a grid cell becomes one vertex. Edge collapse alone takes minutes on millions."""
    cell = np.sqrt(3 * mesh.area / count)
    cells = np.floor((mesh.vertices - mesh.bounds[0]) / cell).astype(np.int64)
    key = np.ravel_multi_index(tuple(cells.T), tuple(cells.max(0) + 1))
    _, same = np.unique(key, return_inverse=True)
    points = np.stack([np.bincount(same, weights=c) for c in mesh.vertices.T], -1) / np.bincount(same)[:, None]
    faces = same[mesh.faces]
    faces = faces[(faces != np.roll(faces, 1, axis=1)).all(1)]
    # Two faces back to back, where a thin part has become flat, go together: a closed surface stays closed.
    _, first, counts = np.unique(np.sort(faces, axis=1), axis=0, return_index=True, return_counts=True)
    return trimesh.Trimesh(points, faces[first[counts % 2 == 1]], process=False)


def _drop_broken(mesh: trimesh.Trimesh, findings: list[Finding]) -> trimesh.Trimesh:
    before = len(mesh.faces)
    finite = (np.abs(mesh.vertices) < FARTHEST).all(1)  # NaN is not less
    mesh.update_faces(finite[mesh.faces].all(1))
    mesh.remove_unreferenced_vertices()
    mesh.merge_vertices(merge_tex=True, merge_norm=True, digits_vertex=7)
    # Slivers without area stay: without them a closed surface has cracks.
    mesh.update_faces(_corners_differ(mesh) & mesh.unique_faces())
    mesh.remove_unreferenced_vertices()
    gone, lost = before - len(mesh.faces), int((~finite).sum())
    if lost or gone > 0.05 * before:
        beyond = f"{lost} vertices are NaN or beyond {FARTHEST:g} m"
        seen = f"{gone} of {before} faces are degenerate, double or not finite ({beyond}); left out"
        findings.append(Finding(check="faces", severity="warning", seen=seen, fix="Nothing to do", fixed_by=True))
    else:
        findings.append(Finding(check="faces", severity="ok", seen=f"{before}, {gone} of them without area left out"))
    return mesh


def _corners_differ(mesh: trimesh.Trimesh) -> np.ndarray:
    a, b, c = mesh.faces.T
    return (a != b) & (b != c) & (c != a)


def _keep_main(mesh: trimesh.Trimesh, findings: list[Finding]) -> trimesh.Trimesh:
    """The largest component, and those that are large and touch it, as the handle of a mug may."""
    labels = _components(mesh)
    count = int(labels.max()) + 1
    if count == 1:
        findings.append(Finding(check="components", severity="ok", seen="1"))
        return mesh
    areas = np.bincount(labels, weights=mesh.area_faces)
    main = int(areas.argmax())
    surface = _part(mesh, labels == main)
    kept = [main]
    for label in np.flatnonzero(areas >= SMALL_PART * areas[main]):
        if label == main:
            continue
        part = _part(mesh, labels == label)
        points = np.concatenate([part.vertices, trimesh.sample.sample_surface(part, 2000, seed=0)[0]])
        touches = distances(surface, points).min() < APART * surface.extents.max()
        if touches or inside_of(surface, part.vertices).all():  # a cavity is inside
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


def _part(mesh: trimesh.Trimesh, faces: np.ndarray) -> trimesh.Trimesh:
    """Some faces of a mesh, shape (F,) bool, as one of its own."""
    part = trimesh.Trimesh(mesh.vertices, mesh.faces[faces], process=False)
    part.remove_unreferenced_vertices()
    return part


def _components(mesh: trimesh.Trimesh) -> np.ndarray:
    """Which connected component each face is in, shape (F,)."""
    return trimesh.graph.connected_component_labels(mesh.face_adjacency, node_count=len(mesh.faces))


def _wind(mesh: trimesh.Trimesh) -> int:
    """Turns faces so that neighbours are wound alike; how many were turned, at most half of a component."""
    edges = np.asarray(trimesh.grouping.group_rows(mesh.edges_sorted, require_count=2))
    pairs = mesh.edges_face[edges]
    differ = mesh.edges[edges[:, 0], 0] == mesh.edges[edges[:, 1], 0]  # both run along their edge the same way
    if not differ.any():
        return 0
    # Each face is there twice, as it is and turned; neighbours that differ connect one with the other.
    count = len(mesh.faces)
    nodes = np.concatenate([pairs, pairs + count]) + np.where(np.tile(differ, 2)[:, None], (0, count), 0)
    labels = trimesh.graph.connected_component_labels(nodes % (2 * count), node_count=2 * count)
    component = _components(mesh)
    first = np.unique(component, return_index=True)[1]
    turn = labels[:count] != labels[first][component]
    share = np.bincount(component, weights=turn) / np.bincount(component)
    turn ^= share[component] > 0.5
    mesh.faces[turn] = mesh.faces[turn, ::-1]
    return int(turn.sum())


def _close(mesh: trimesh.Trimesh, findings: list[Finding]) -> trimesh.Trimesh:
    """Closes all holes; one that is larger than half of the object is a side that was not scanned, and told."""
    edges = _open_edges(mesh)
    if not len(edges):
        findings.append(Finding(check="holes", severity="ok", seen="none, the surface is closed"))
        return mesh
    o3d = open3d()
    size = float(mesh.extents.max())
    tensor = o3d.t.geometry.TriangleMesh(
        o3d.core.Tensor(mesh.vertices.astype(np.float32)), o3d.core.Tensor(mesh.faces.astype(np.int32))
    )
    filled = tensor.fill_holes(hole_size=10 * size)
    closed = trimesh.Trimesh(filled.vertex.positions.numpy(), filled.triangle.indices.numpy(), process=False)
    closed.merge_vertices(digits_vertex=7)
    closed.update_faces(_corners_differ(closed) & closed.unique_faces())
    _wind(closed)
    closed = _cap(closed)
    ends = mesh.vertices[edges]
    where = f"{len(edges)} open edges around ({', '.join(f'{c:.3f}' for c in ends.mean((0, 1)))}) m"
    labels = trimesh.graph.connected_component_labels(edges, node_count=len(mesh.vertices))[edges[:, 0]]
    widest = max(float(np.ptp(ends[labels == label].reshape(-1, 3), axis=0).max()) for label in np.unique(labels))
    left = len(_open_edges(closed))
    if left:
        seen = f"{where}; {left} of them could not be closed"
        fix = "Volume and mass are estimated from outside; mend it in a mesh editor for exact ones"
    elif widest < size / 2:
        seen, fix = f"{where}; closed", "Nothing to do"
    else:
        seen = f"{where}, {100 * widest:.1f} cm wide: a side is missing; closed flat"
        fix = "If it is not flat there, scan that side: volume and mass are estimates"
    findings.append(Finding(check="holes", severity="warning", seen=seen, fix=fix, fixed_by=not left))
    return closed


def _cap(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    """Closes what is still open, each loop of edges with a fan from its middle; neighbours must be wound alike."""
    single = trimesh.grouping.group_rows(mesh.edges_sorted, require_count=1)
    following: dict[int, list[int]] = {}
    for start, end in mesh.edges[single].tolist():
        following.setdefault(end, []).append(start)  # a lid runs the other way
    points, faces = [], []
    while following:
        path = [next(iter(following))]
        while path[-1] in following:
            after = following[path[-1]]
            path.append(after.pop())
            if not after:
                del following[path[-2]]
            if path[-1] in path[:-1]:  # a loop is cut off where the way comes by again
                begin = path.index(path[-1])
                loop, path = path[begin:-1], path[: begin + 1]
                middle = len(mesh.vertices) + len(points)
                points.append(mesh.vertices[loop].mean(0))
                faces += [(a, b, middle) for a, b in zip(loop, [*loop[1:], loop[0]], strict=True)]
    if not faces:
        return mesh
    return trimesh.Trimesh(np.concatenate([mesh.vertices, points]), np.concatenate([mesh.faces, faces]), process=False)


def _open_edges(mesh: trimesh.Trimesh) -> np.ndarray:
    """Edges with one face, or an odd number of them, shape (E, 2)."""
    unique, counts = np.unique(mesh.edges_sorted, axis=0, return_counts=True)
    return unique[counts % 2 == 1]


def _turn_outwards(mesh: trimesh.Trimesh, turned: int, findings: list[Finding]) -> None:
    """Turns each component outwards, but for cavities inside of the largest one."""
    component = _components(mesh)
    volumes = np.bincount(component, weights=_signed_volumes(mesh))
    main = int(np.abs(volumes).argmax())
    inwards = np.full(len(volumes), volumes[main] < 0)
    for label in np.flatnonzero(np.where(inwards, -volumes, volumes) < 0):
        surface = _part(mesh, component == main)
        if not inside_of(surface, mesh.vertices[np.unique(mesh.faces[component == label])]).all():
            inwards[label] = ~inwards[label]
    mesh.faces[inwards[component]] = mesh.faces[inwards[component], ::-1]
    if turned > 1e-3 * len(mesh.faces):  # single ones are what thinning out has folded
        seen = f"{turned} faces were wound the other way round; all turned outwards"
    elif inwards.any():
        seen = "the mesh is inside out; turned" if inwards[main] else "a part is inside out; turned"
    else:
        findings.append(Finding(check="normals", severity="ok", seen="outwards"))
        return
    findings.append(Finding(check="normals", severity="warning", seen=seen, fix="Nothing to do", fixed_by=True))


def _uncross(solid: Solid) -> Solid:
    """Joins parts that overlap; what crosses itself still is weighed without the excess."""
    if not solid.watertight or not len(solid.excess.volume):
        return solid
    volume = solid.moments()[0]
    share = np.abs(solid.excess.volume).sum() / volume
    seen = f"the surface crosses itself: {100 * share:.0f} % of the room inside is not counted once"
    joined = Solid(_union(solid.mesh), solid.findings)
    if joined.watertight and abs(joined.mesh.volume / volume - 1) < MISCOUNTED and not len(joined.excess.volume):
        solid, seen, fix = joined, f"{seen}; its parts are joined", "Nothing to do"
    else:
        seen += f"; volume, mass and inertia are corrected along {LINES**2} lines"
        fix = "Mend it in a mesh editor for exact ones"
    solid.findings.append(Finding(check="crossings", severity="warning", seen=seen, fix=fix, fixed_by=True))
    return solid


def _union(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    """The components as one surface; as they are, where there is but one or they cannot be joined."""
    component = _components(mesh)
    volumes = np.bincount(component, weights=_signed_volumes(mesh))
    # What is wound inwards is a cavity of the largest one.
    body = np.where(volumes < 0, np.abs(volumes).argmax(), np.arange(len(volumes)))[component]
    parts = [_part(mesh, body == label) for label in np.unique(body)]
    try:
        union = trimesh.boolean.union(parts, check_volume=False) if len(parts) > 1 else mesh
    except ImportError:  # manifold3d is missing
        return mesh
    return union if len(union.faces) else mesh


def _signed_volumes(mesh: trimesh.Trimesh) -> np.ndarray:
    """Volume between each face and the middle of the mesh, negative where it is wound inwards, shape (F,) [m^3]."""
    a, b, c = (mesh.triangles - mesh.bounds.mean(0)).transpose(1, 0, 2)
    return np.einsum("fi,fi->f", a, np.cross(b, c)) / 6
