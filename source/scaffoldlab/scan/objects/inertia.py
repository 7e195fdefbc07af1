"""How heavy a solid is, and how it turns."""

from dataclasses import dataclass

import numpy as np
import trimesh

from scaffoldlab.errors import ScaffoldError
from scaffoldlab.scan.objects.solid import Solid


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
    volume, center, second = solid.moments()
    if wall is not None:
        amount, center, second = _shell_moments(solid.mesh, wall)
    else:
        amount = volume
    density = density if mass is None else mass / amount
    about_center = second - amount * np.outer(center, center)
    tensor = density * (np.trace(about_center) * np.eye(3) - about_center)
    return Inertia(density * amount, volume, center, tensor)


def _shell_moments(mesh: trimesh.Trimesh, wall: float) -> tuple[float, np.ndarray, np.ndarray]:
    """The same of a thin wall: its middle surface, exact for each flat triangle, times its thickness."""
    thickest = 3 * abs(float(mesh.volume)) / mesh.area  # as far as the surface of a ball is from its middle
    if wall >= thickest:
        raise ScaffoldError(
            f"--hollow {wall:g}: walls that thick would meet; allowed: less than {thickest:.2g} m. Give a thinner "
            "wall, or leave it out for a full body."
        )
    a, b, c = _moved_inwards(mesh, wall / 2)[mesh.faces].transpose(1, 0, 2)
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2
    amount = wall * area.sum()
    center = wall * (area[:, None] * (a + b + c) / 3).sum(0) / amount
    outer = [np.einsum("fi,fj->fij", p, p) for p in (a, b, c, a + b + c)]
    second = wall * (area[:, None, None] / 12 * sum(outer)).sum(0)
    return float(amount), center, second


def _moved_inwards(mesh: trimesh.Trimesh, distance: float) -> np.ndarray:
    """The vertices where the planes of their faces meet after all have moved inwards, shape (V, 3) [m]."""
    around = np.zeros((len(mesh.vertices), 3, 3))
    along = np.zeros((len(mesh.vertices), 3))
    weighted = mesh.area_faces[:, None] * mesh.face_normals
    for corner in mesh.faces.T:
        np.add.at(around, corner, np.einsum("fi,fj->fij", weighted, mesh.face_normals))
        np.add.at(along, corner, weighted)
    total = np.trace(around, axis1=1, axis2=2)[:, None, None]
    # Where faces are nearly in one plane, the vertex moves along their normal and not along the plane.
    around = around + (0.01 * total + 1e-18) * np.eye(3)
    return mesh.vertices - distance * np.linalg.solve(around, along[:, :, None])[:, :, 0]
