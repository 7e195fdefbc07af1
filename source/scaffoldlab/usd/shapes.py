"""Meshes and textures for visuals, made from a few numbers; all in metres, z up, and the same on every machine."""

from pathlib import Path

import numpy as np
import trimesh
from PIL import Image


def rounded_box(size: tuple[float, float, float], radius: float, *, subdivisions: int = 2) -> trimesh.Trimesh:
    """A box of outer edge lengths ``size`` [m] with edges rounded by ``radius`` [m]; UVs project along z."""
    ball = trimesh.creation.icosphere(subdivisions=subdivisions, radius=radius).vertices
    corners = (np.array(size) / 2 - radius) * np.array(np.meshgrid(*[[-1, 1]] * 3)).reshape(3, -1).T
    mesh = trimesh.convex.convex_hull((corners[:, None] + ball[None]).reshape(-1, 3))
    return with_planar_uv(_crease(mesh), scale=max(size[:2]))


def capsule(radius: float, length: float, *, position: tuple[float, float, float] = (0, 0, 0)) -> trimesh.Trimesh:
    """A capsule along z of the given radius and length without its caps [m], centred at ``position``."""
    mesh = trimesh.creation.capsule(height=length, radius=radius, count=(24, 24))
    return mesh.apply_translation(np.array(position) - mesh.bounds.mean(0))


def cylinder(radius: float, length: float, *, sections: int = 32) -> trimesh.Trimesh:
    """A cylinder along z [m], its rims creased."""
    return _crease(trimesh.creation.cylinder(radius=radius, height=length, sections=sections))


def revolved(profile: list[tuple[float, float]], *, sections: int = 48) -> trimesh.Trimesh:
    """The solid of a profile of (radius, z) [m] from its lower to its upper end on the axis, its rims creased."""
    return _crease(trimesh.creation.revolve(np.array(profile, float), sections=sections))


def apple(radius: float) -> trimesh.Trimesh:
    """The skin of an apple of about the given radius [m]: dimples at both poles, widest above the middle."""
    angle = np.linspace(0, np.pi, 48)
    dimple = 1 - 0.24 * np.exp(-((angle / 0.38) ** 2)) - 0.12 * np.exp(-(((np.pi - angle) / 0.3) ** 2))
    taper = 1 + 0.05 * np.cos(angle)
    profile = radius * np.stack([taper * np.sin(angle), dimple * np.cos(angle)], 1)
    profile[[0, -1], 0] = 0
    return trimesh.creation.revolve(profile[::-1], sections=48)


def with_planar_uv(mesh: trimesh.Trimesh, *, scale: float) -> trimesh.Trimesh:
    """The mesh with texture coordinates x/scale, y/scale, plus a little z so that side faces are not streaks."""
    vertices = mesh.vertices
    uv = np.stack([vertices[:, 0] + vertices[:, 2], vertices[:, 1] + vertices[:, 2]], 1) / scale + 0.5
    mesh.visual = trimesh.visual.TextureVisuals(uv=uv)
    return mesh


def wood_texture(
    path: Path, *, light: tuple[int, int, int], dark: tuple[int, int, int], planks: int, seed: int
) -> None:
    """Writes a 512 x 512 picture of planks along u with grain."""
    rng = np.random.default_rng(seed)
    v, u = np.mgrid[0:512, 0:512] / 512
    plank = np.floor(v * planks).astype(int)
    offset, shade = rng.uniform(0, 10, planks)[plank], rng.uniform(-0.18, 0.18, planks)[plank]
    bend = 0.02 * np.sin(2 * np.pi * (u * 1.3 + offset)) + 0.006 * np.sin(2 * np.pi * (u * 5 + 3 * offset))
    grain = 0.5 + 0.5 * np.sin(2 * np.pi * ((v + bend) * 46 + offset * 7))
    fine = rng.normal(0, 1, (512, 512)).cumsum(1)
    fine = (fine - fine.mean(1, keepdims=True)) / 60
    tone = np.clip(0.25 + shade + 0.45 * grain**2 + 0.12 * fine, 0, 1)[..., None]
    seam = (np.abs((v * planks) % 1) < 0.012)[..., None]
    picture = np.array(light) * (1 - tone) + np.array(dark) * tone
    _write(path, np.where(seam, picture * 0.6, picture))


def stone_texture(path: Path, *, base: tuple[int, int, int], seed: int) -> None:
    """Writes a 512 x 512 picture of speckled stone."""
    rng = np.random.default_rng(seed)
    picture = np.full((512, 512, 3), base, float)
    for cell, strength in ((64, 7), (16, 6), (4, 7), (1, 5)):
        noise = rng.normal(0, strength, (512 // cell, 512 // cell))
        picture += np.asarray(Image.fromarray(noise.astype(np.float32)).resize((512, 512), Image.Resampling.BICUBIC))[
            ..., None
        ]
    speck = rng.random((512, 512)) < 0.006
    picture[speck] *= 0.72
    _write(path, picture)


def _write(path: Path, picture: np.ndarray) -> None:
    Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).save(path, optimize=True)


def _crease(mesh: trimesh.Trimesh, angle: float = np.radians(40)) -> trimesh.Trimesh:
    """Splits vertices along sharp edges, so that vertex normals shade flat faces flat."""
    return trimesh.graph.smooth_shade(mesh, angle=angle)
