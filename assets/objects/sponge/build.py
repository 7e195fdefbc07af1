"""A kitchen sponge with a scouring pad: 110 x 70 x 30 mm as sold, moist, 30 g; its origin is its middle."""

from pathlib import Path

import numpy as np
import trimesh

from scaffoldlab.usd.shapes import rounded_box
from scaffoldlab.usd.writer import UsdWriter

SIZE, PAD, MASS = (0.070, 0.110, 0.030), 0.008, 0.030


def build(folder: Path, license: str) -> None:
    usd = UsdWriter(folder / "sponge.usda", license=license)
    usd.body("", mass=MASS)
    foam = usd.friction("foam", static=1.0, dynamic=1.0, combine="average")
    # Rigid: no engine here bends it.
    usd.collider("collider", "box", size=SIZE, friction=foam)
    yellow = usd.surface("yellow", color=(0.83, 0.62, 0.06), roughness=0.95)
    pore = usd.surface("pore", color=(0.52, 0.36, 0.03), roughness=1.0)
    green = usd.surface("green", color=(0.05, 0.26, 0.10), roughness=1.0)
    x, y, z = SIZE
    usd.visual("foam", rounded_box((x, y, z - PAD), 0.005), surface=yellow, position=(0, 0, -PAD / 2))
    usd.visual("pad", rounded_box((x, y, PAD), 0.002), surface=green, position=(0, 0, (z - PAD) / 2))
    usd.visual("pores", _pores(np.random.default_rng(0), x, y, z - PAD), surface=pore, position=(0, 0, -PAD / 2))
    usd.save()


def _pores(rng: np.random.Generator, x: float, y: float, z: float) -> trimesh.Trimesh:
    """Small dark discs on the four sides."""
    discs = []
    for axis, sign in ((0, -1), (0, 1), (1, -1), (1, 1)):
        for _ in range(26):
            disc = trimesh.creation.cylinder(radius=rng.uniform(0.0008, 0.002), height=0.0004, sections=10)
            disc.apply_transform(trimesh.geometry.align_vectors([0, 0, 1], np.eye(3)[axis]))
            place = np.array([rng.uniform(-0.42, 0.42) * x, rng.uniform(-0.42, 0.42) * y, rng.uniform(-0.3, 0.3) * z])
            place[axis] = sign * (x, y)[axis] / 2
            discs.append(disc.apply_translation(place))
    return trimesh.util.concatenate(discs)
