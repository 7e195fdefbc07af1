"""What rays find out about a surface: where its inside is, how far it is, and where it crosses itself."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import trimesh

from scaffoldlab.scan.o3d import open3d

LINES = 100
"""Lines along each side by which a surface is found to cross itself."""


@dataclass(frozen=True, eq=False)
class Columns:
    """Thin upright columns of room.

    Attributes:
        center: Their middles [m], shape (C, 3).
        length: Their lengths along z [m], shape (C,).
        volume: Their volumes, negative where room counts too little [m^3], shape (C,).
    """

    center: np.ndarray
    length: np.ndarray
    volume: np.ndarray

    def moments(self) -> tuple[float, np.ndarray, np.ndarray]:
        """Volume [m^3], first [m^4] and second moments [m^5] about the origin."""
        second = np.einsum("c,ci,cj->ij", self.volume, self.center, self.center)
        second[2, 2] += self.volume @ self.length**2 / 12
        return float(self.volume.sum()), self.volume @ self.center, second


def miscounted(mesh: trimesh.Trimesh) -> tuple[Columns, float]:
    """Where a surface does not wind once around the room inside, by lines along z, and the share of that.

    Around room that two parts share it winds twice, and the signed volume has it once too often.
    """
    low, sides = mesh.bounds[0], mesh.extents
    cells = np.stack(np.meshgrid(np.arange(LINES), np.arange(LINES)), -1).reshape(-1, 2)
    cells = cells + np.random.default_rng(0).random(cells.shape)  # a line of a regular grid may run along an edge
    starts = np.c_[low[:2] + cells / LINES * sides[:2], np.full(len(cells), low[2] - 0.01 * sides[2])]
    line, away, entering = _hits(mesh, starts, np.array((0.0, 0.0, 1.0)))
    complete = np.bincount(line, weights=entering, minlength=len(cells)) == 0
    line, away, entering = (values[complete[line]] for values in (line, away, entering))
    winding = np.cumsum(entering)  # it is 0 where a line ends
    length = np.diff(away, append=away[-1:])
    volume = length * sides[0] * sides[1] / LINES**2
    inside = winding != 0
    excess = (winding - inside) * volume
    there = excess != 0
    center = starts[line[there]]
    center[:, 2] += away[there] + length[there] / 2
    return Columns(center, length[there], excess[there]), float(np.abs(excess).sum() / max(volume[inside].sum(), 1e-30))


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


def distances(mesh: trimesh.Trimesh, points: np.ndarray) -> np.ndarray:
    """Distances of points from a surface [m], shape (P, 3) -> (P,)."""
    scene = open3d().t.geometry.RaycastingScene()
    scene.add_triangles(mesh.vertices.astype(np.float32), mesh.faces.astype(np.uint32))
    return scene.compute_distance(points.astype(np.float32)).numpy()


def inside_of(mesh: trimesh.Trimesh, points: np.ndarray) -> np.ndarray:
    """Whether points are inside a surface, by the majority of three rays, shape (P, 3) -> (P,)."""
    inside = _scene(mesh).compute_occupancy(points.astype(np.float32), nsamples=3).numpy() > 0.5
    rest = np.flatnonzero(~inside)
    if not len(rest):
        return inside
    # That goes by odd and even: out of room that is enclosed twice a ray leaves twice.
    ray, _, entering = _hits(mesh, points[rest], np.array((0.36, 0.48, 0.8)))
    inside[rest] = np.abs(np.bincount(ray, weights=entering, minlength=len(rest))) >= 2
    return inside


def _hits(mesh: trimesh.Trimesh, starts: np.ndarray, direction: np.ndarray) -> tuple[np.ndarray, ...]:
    """All hits of parallel rays, in order: ray, distance [m], and 1 where the ray enters, -1 where it leaves."""
    rays = np.c_[starts, np.broadcast_to(direction, starts.shape)].astype(np.float32)
    hits = _scene(mesh).list_intersections(rays)
    ray, away, face = (hits[key].numpy() for key in ("ray_ids", "t_hit", "primitive_ids"))
    order = np.lexsort((away, ray))
    entering = -np.sign(mesh.face_normals @ direction)
    return ray[order], away[order], entering[face[order]]


def _scene(mesh: trimesh.Trimesh) -> Any:
    """The surface, for rays. It is shaken: of two faces in one plane, rays would miss one now and then."""
    shake = 1e-5 * mesh.scale * np.random.default_rng(0).uniform(-1, 1, mesh.vertices.shape)
    scene = open3d().t.geometry.RaycastingScene()
    scene.add_triangles((mesh.vertices + shake).astype(np.float32), mesh.faces.astype(np.uint32))
    return scene
