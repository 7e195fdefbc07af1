"""Combination pliers of 180 mm (a nominal length of ISO 5746), 0.24 kg, as two halves on one hinge.

Nothing holds them: the half called ``left`` is the root. The frame of both halves is the hinge's, in the middle of the
grips' height of 18 mm; at joint position 0 the handles are parallel, and a positive one spreads them. Pliers that stay
as they are laid down have a hinge friction of about m g r = 0.12 kg x 9.8 m/s^2 x 0.05 m = 0.06 N m.
"""

from pathlib import Path

import numpy as np
import trimesh

from scaffoldlab.geometry import quat_xyzw_from_rpy
from scaffoldlab.usd.shapes import cylinder, rounded_box
from scaffoldlab.usd.writer import UsdWriter

HALF_MASS, SPREAD = 0.12, np.radians(50)
GRIP_WIDTH, GRIP_HEIGHT = 0.013, 0.018
HEAD_HEIGHT, JAW_LENGTH, JAW_WIDTH = 0.012, 0.052, 0.012
# The middle line of the left half's handle: neck, bend, end [m].
NECK, BEND, END = np.array([0.007, 0.020]), np.array([0.0135, 0.045]), np.array([0.0125, 0.128])


def build(folder: Path, license: str) -> None:
    usd = UsdWriter(folder / "pliers.usda", license=license)
    steel = usd.friction("steel", static=1.0, dynamic=1.0, combine="average")
    usd.surface("red", color=(0.62, 0.05, 0.04), roughness=0.5)
    usd.surface("metal", color=(0.30, 0.31, 0.33), roughness=0.35, metallic=1.0)
    usd.surface("dark", color=(0.05, 0.05, 0.06), roughness=0.4, metallic=1.0)
    for half, side in (("left", 1), ("right", -1)):
        usd.body(half, mass=HALF_MASS)
        mirror = np.array([side, 1])
        # The head touches the table as the grips do.
        head = (HEAD_HEIGHT - GRIP_HEIGHT) / 2
        neck = (np.zeros(2), mirror * NECK, JAW_WIDTH, HEAD_HEIGHT)
        _bar(usd, f"{half}/neck", *neck, z=head, surface="metal", friction=steel)
        _bar(usd, f"{half}/shank", mirror * NECK, mirror * BEND, GRIP_WIDTH, GRIP_HEIGHT, surface="red", friction=steel)
        _bar(usd, f"{half}/grip", mirror * BEND, mirror * END, GRIP_WIDTH, GRIP_HEIGHT, surface="red", friction=steel)
        jaw = _jaw(side)
        usd.collider(f"{half}/jaw_collider", "convex", mesh=jaw, position=(0, 0, head), friction=steel)
        usd.visual(f"{half}/jaw", jaw, surface="metal", position=(0, 0, head))
    usd.visual("left/rivet", cylinder(0.0115, HEAD_HEIGHT + 0.004), surface="dark", position=(0, 0, head))
    usd.articulation(root="left")
    usd.joint("hinge", "revolute", "left", "right", axis="Z", limits=(0.0, SPREAD))
    usd.save()


def _bar(usd: UsdWriter, path: str, start, end, width: float, height: float, *, z=0.0, surface: str, friction: str):
    """A box from one point to another, with rounded edges to the eye."""
    along = end - start
    size = (float(np.linalg.norm(along)) + 0.6 * width, width, height)
    place = dict(
        position=(*((start + end) / 2), z), quat_xyzw=quat_xyzw_from_rpy(np.array([0, 0, np.arctan2(*along[::-1])]))
    )
    usd.collider(f"{path}_collider", "box", size=size, friction=friction, **place)
    usd.visual(path, rounded_box(size, 0.45 * min(width, height)), surface=surface, **place)


def _jaw(side: int) -> trimesh.Trimesh:
    """One jaw, across the hinge from its handle, which tapers to the tip."""
    outline = np.array([[0, 0.010], [0, -JAW_LENGTH], [-0.004, -JAW_LENGTH], [-JAW_WIDTH, -0.010], [-0.010, 0.006]])
    outline = outline * (side, 1)
    corners = [(x, y, z) for x, y in outline for z in (-HEAD_HEIGHT / 2, HEAD_HEIGHT / 2)]
    hull = trimesh.convex.convex_hull(np.array(corners))
    return trimesh.graph.smooth_shade(hull, angle=np.radians(40))
