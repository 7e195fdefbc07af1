"""Objects of known size, volume and inertia, as a perfect scanner would return them: metres, z up, textured."""

import manifold3d
import numpy as np
import trimesh
from PIL import Image

from scaffoldlab.usd.shapes import rounded_box


def union(*meshes: trimesh.Trimesh) -> trimesh.Trimesh:
    """One closed surface around several closed meshes."""
    return _boolean(manifold3d.OpType.Add, meshes)


def difference(mesh: trimesh.Trimesh, *cutters: trimesh.Trimesh) -> trimesh.Trimesh:
    """What the cutters leave of a closed mesh."""
    return _boolean(manifold3d.OpType.Subtract, (mesh, *cutters))


def _boolean(operation, meshes) -> trimesh.Trimesh:
    welded = [trimesh.Trimesh(m.vertices, m.faces) for m in meshes]
    solids = [
        manifold3d.Manifold(manifold3d.Mesh(m.vertices.astype(np.float32), m.faces.astype(np.uint32))) for m in welded
    ]
    result = manifold3d.Manifold.batch_boolean(solids, operation).to_mesh()
    return trimesh.Trimesh(result.vert_properties[:, :3], result.tri_verts, process=False)


def cup(*, radius=0.04, height=0.09, wall=0.004, sections=64) -> trimesh.Trimesh:
    """An open cup that stands on z = 0."""
    outer = trimesh.creation.cylinder(radius, height, sections=sections)
    inner = trimesh.creation.cylinder(radius - wall, height, sections=sections).apply_translation((0, 0, wall))
    return difference(outer, inner).apply_translation((0, 0, height / 2))


def mug() -> trimesh.Trimesh:
    """A cup with a handle on its +x side."""
    ring = trimesh.creation.torus(0.022, 0.005, major_sections=48, minor_sections=16)
    ring.apply_transform(trimesh.transformations.rotation_matrix(np.pi / 2, (1, 0, 0), (0, 0, 0)))
    ring.apply_translation((0.045, 0, 0.045))
    inner = trimesh.creation.cylinder(0.036, 0.09, sections=64).apply_translation((0, 0, 0.049))
    return difference(union(cup(), ring), inner)


def t_shape() -> trimesh.Trimesh:
    """A letter T of two bars, 12 x 12 x 3 cm, that lies on z = 0."""
    bar = trimesh.creation.box((0.12, 0.04, 0.03)).apply_translation((0, 0.04, 0.015))
    stem = trimesh.creation.box((0.04, 0.081, 0.03)).apply_translation((0, -0.0195, 0.015))
    return union(bar, stem)


def shoe() -> trimesh.Trimesh:
    """A sole of 26 x 9 cm with a heel counter and a toe box, open at the top."""
    body = rounded_box((0.26, 0.09, 0.10), 0.02).apply_translation((0, 0, 0.05))
    hole = trimesh.creation.box((0.14, 0.06, 0.10)).apply_translation((-0.03, 0, 0.07))
    slope = trimesh.creation.box((0.16, 0.2, 0.08))
    slope.apply_transform(trimesh.transformations.rotation_matrix(0.25, (0, 1, 0)))
    return difference(body, hole, slope.apply_translation((0.10, 0, 0.11)))


def book() -> trimesh.Trimesh:
    """21 x 14.8 x 2.5 cm, lying on z = 0."""
    return trimesh.creation.box((0.21, 0.148, 0.025)).apply_translation((0, 0, 0.0125))


def shelf() -> trimesh.Trimesh:
    """Two boards of 40 x 20 cm, 20 cm apart, between two sides and before a back."""
    boards = [trimesh.creation.box((0.40, 0.20, 0.015)).apply_translation((0, 0, z)) for z in (0.0075, 0.2225)]
    sides = [trimesh.creation.box((0.015, 0.20, 0.30)).apply_translation((x, 0, 0.15)) for x in (-0.1925, 0.1925)]
    back = trimesh.creation.box((0.40, 0.01, 0.30)).apply_translation((0, -0.095, 0.15))
    return union(*boards, *sides, back)


SHAPES = {"mug": mug, "cup": cup, "t_shape": t_shape, "shoe": shoe, "book": book}


def textured(mesh: trimesh.Trimesh, seed: int = 0) -> trimesh.Trimesh:
    """The same mesh with a cheerful picture wrapped around its z axis."""
    rng = np.random.default_rng(seed)
    tiles = rng.integers(40, 255, (8, 8, 3), dtype=np.uint8)
    image = Image.fromarray(tiles).resize((256, 256), Image.Resampling.NEAREST)
    low, high = mesh.bounds
    center = (low + high) / 2
    angle = np.arctan2(mesh.vertices[:, 1] - center[1], mesh.vertices[:, 0] - center[0])
    uv = np.stack([angle / (2 * np.pi) + 0.5, (mesh.vertices[:, 2] - low[2]) / (high[2] - low[2])], -1)
    visual = trimesh.visual.TextureVisuals(uv=uv, image=image)
    return trimesh.Trimesh(mesh.vertices, mesh.faces, visual=visual, process=False)


def vase(faces: int = 200_000, noise: float = 1e-4) -> trimesh.Trimesh:
    """A vase of 10 x 10 x 20 cm with a wall of 4 mm, as fine and as rough [m] as a scan, that stands on z = 0."""
    sections = round((faces / 2 / 0.8) ** 0.5)
    height = np.linspace(0, 0.2, round(0.4 * sections))
    outer = np.c_[0.035 + 0.015 * np.sin(np.pi * (0.15 + height / 0.2)), height]
    inner = np.c_[outer[:, 0] - 0.004, height.clip(0.004)][::-1]
    profile = np.vstack([[0, 0], outer, inner[height[::-1] >= 0.004], [0, 0.004]])
    mesh = trimesh.creation.revolve(profile, sections=sections)
    rng = np.random.default_rng(0)
    mesh.vertices += mesh.vertex_normals * rng.normal(0, noise, (len(mesh.vertices), 1))
    return mesh
