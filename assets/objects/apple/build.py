"""An apple: 37.5 mm in radius, 150 g, its collider the hull of 42 points so that it does not roll for ever."""

from pathlib import Path

import numpy as np
import trimesh

from scaffoldlab.usd.shapes import apple, capsule
from scaffoldlab.usd.writer import UsdWriter

RADIUS, MASS = 0.0375, 0.150


def build(folder: Path, license: str) -> None:
    usd = UsdWriter(folder / "apple.usda", license=license)
    usd.body("", mass=MASS)
    skin = usd.friction("skin", static=1.0, dynamic=1.0, combine="average")
    # Rotated so that a face, not a corner, is at the bottom.
    hull = trimesh.creation.icosphere(subdivisions=1, radius=RADIUS)
    hull.apply_transform(trimesh.geometry.align_vectors(hull.face_normals[0], [0, 0, -1]))
    usd.collider("collider", "convex", mesh=hull, friction=skin)
    red = usd.surface("red", color=(0.62, 0.03, 0.03), roughness=0.35)
    brown = usd.surface("brown", color=(0.13, 0.07, 0.03), roughness=0.9)
    green = usd.surface("green", color=(0.10, 0.32, 0.05), roughness=0.6)
    usd.visual("skin", apple(RADIUS), surface=red)
    usd.visual("stem", capsule(0.0016, 0.016), surface=brown, position=(0.001, 0, 0.034))
    leaf = trimesh.creation.icosphere(subdivisions=2, radius=1.0)
    leaf.apply_scale([0.013, 0.006, 0.0012])
    half = np.radians(-20) / 2
    usd.visual("leaf", leaf, surface=green, position=(0.013, 0, 0.041), quat_xyzw=(0, np.sin(half), 0, np.cos(half)))
    usd.save()
