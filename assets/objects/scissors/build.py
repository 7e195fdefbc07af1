"""Kitchen scissors of 19 cm (sold as 7.5 inch), 100 g with their plastic handles, as two halves on one hinge.

Nothing holds them: the half called ``first`` is the root. The frame of both halves is the hinge's, in the middle of the
loops' height of 13 mm; at joint position 0 the blades lie on each other, and a positive one opens them. Well set
scissors pass the drop test: held level by one half, the other one falls until it is about half open and stays. That
asks for a hinge friction of m g r cos(45 deg) = 0.05 kg x 9.8 m/s^2 x 0.05 m x 0.7 = 0.02 N m; stiff ones have twice
that.
"""

from pathlib import Path

import numpy as np
import trimesh

from scaffoldlab.geometry import quat_xyzw_from_rpy
from scaffoldlab.usd.shapes import cylinder, rounded_box
from scaffoldlab.usd.writer import UsdWriter

HALF_MASS, SPREAD = 0.05, np.radians(60)
HEIGHT, BAND = 0.013, 0.006
LOOP, LOOP_AXES = np.array([0.0190, 0.065]), np.array([0.0142, 0.0237])
BLADE_LENGTH, BLADE_WIDTH, BLADE_THICKNESS = 0.100, 0.0135, 0.002
SEGMENTS = 8


def build(folder: Path, license: str) -> None:
    usd = UsdWriter(folder / "scissors.usda", license=license)
    plastic = usd.friction("plastic", static=1.0, dynamic=1.0, combine="average")
    usd.surface("orange", color=(0.80, 0.20, 0.02), roughness=0.4)
    usd.surface("steel", color=(0.50, 0.51, 0.53), roughness=0.25, metallic=1.0)
    usd.surface("dark", color=(0.06, 0.06, 0.07), roughness=0.4, metallic=1.0)
    for layer, (half, side) in enumerate((("first", 1), ("second", -1))):
        usd.body(half, mass=HALF_MASS)
        mirror = np.array([side, 1])
        _loop(usd, half, mirror, plastic)
        start, end = np.zeros(2), mirror * (LOOP - (0.005, 0.026))
        _bar(usd, f"{half}/shank", start, end, 0.011, HEIGHT - 0.003, surface="orange", friction=plastic)
        # Both blades rest on the table; to the eye one lies on the other.
        floor = -HEIGHT / 2
        blade = _blade(side, BLADE_THICKNESS)
        usd.visual(
            f"{half}/blade", blade, surface="steel", position=(0, 0, floor + (0.5 + layer) * BLADE_THICKNESS + 0.0005)
        )
        lying = dict(mesh=_blade(side, 2 * BLADE_THICKNESS), position=(0, 0, floor + BLADE_THICKNESS))
        usd.collider(f"{half}/blade_collider", "convex", friction=plastic, **lying)
    usd.visual("first/rivet", cylinder(0.005, HEIGHT + 0.001), surface="dark")
    usd.articulation(root="first")
    usd.joint("hinge", "revolute", "first", "second", axis="Z", limits=(0.0, SPREAD))
    usd.save()


def _loop(usd: UsdWriter, half: str, mirror: np.ndarray, friction: str) -> None:
    """An elliptical ring of boxes; only the two outermost ones touch the table, to spare contacts."""
    center = mirror * LOOP
    for number in range(SEGMENTS):
        angle = 2 * np.pi * (number + 0.5) / SEGMENTS
        points = [LOOP_AXES * (np.cos(a), np.sin(a)) for a in (angle - np.pi / SEGMENTS, angle + np.pi / SEGMENTS)]
        raised = 0.0 if number in (0, 1) else 0.001
        _bar(
            usd, f"{half}/loop_{number}", center + mirror * points[0], center + mirror * points[1], BAND,
            HEIGHT - raised, z=raised / 2, friction=friction,
        )  # fmt: skip
    ring = trimesh.creation.torus(major_radius=1.0, minor_radius=0.2, major_sections=48, minor_sections=16)
    scale = np.append(LOOP_AXES, HEIGHT / 2 / 0.2)
    shift = np.append(center, 0.0)
    usd.visual(f"{half}/loop", trimesh.Trimesh(ring.vertices * scale + shift, ring.faces), surface="orange")


def _bar(usd: UsdWriter, path: str, start, end, width: float, height: float, *, z=0.0, friction: str, surface=None):
    """A box from one point to another, with rounded edges to the eye if it has a surface."""
    along = end - start
    size = (float(np.linalg.norm(along)) + 0.6 * width, width, height)
    place = dict(
        position=(*((start + end) / 2), z), quat_xyzw=quat_xyzw_from_rpy(np.array([0, 0, np.arctan2(*along[::-1])]))
    )
    usd.collider(f"{path}_collider", "box", size=size, friction=friction, **place)
    if surface:
        usd.visual(path, rounded_box(size, 0.35 * min(width, height)), surface=surface, **place)


def _blade(side: int, thickness: float) -> trimesh.Trimesh:
    """One blade, across the hinge from its loop, which tapers to the tip."""
    tip, edge = -BLADE_LENGTH, 0.002 - BLADE_WIDTH
    outline = np.array([[0.005, 0.013], [0.001, tip], [-0.001, tip], [edge, -0.020], [-0.005, 0.013]]) * (side, 1)
    corners = [(x, y, z) for x, y in outline for z in (-thickness / 2, thickness / 2)]
    hull = trimesh.convex.convex_hull(np.array(corners))
    return trimesh.graph.smooth_shade(hull, angle=np.radians(40))
