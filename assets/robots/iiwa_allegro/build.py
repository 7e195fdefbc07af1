"""A KUKA LBR iiwa 14 R820 with an Allegro right hand, with primitive colliders.

Facts of the arm, from KUKA's data sheet and dimension drawing of the LBR iiwa 14 R820: distances 360 mm from floor to
A2, 420 mm from A2 to A4, 400 mm from A4 to A6, 126 mm from A6 to the media flange; A1 to A7 turn by +-170, 120, 170,
120, 170, 120, 175 deg with at most 320, 320, 176, 176, 110, 40, 40 Nm (these are in robot.yaml); 29.9 kg in all.
Where the distances are cut into links, and the masses of the links (30.6 kg in all), are those of the public robot
descriptions. Shapes are our own; so is the plate between flange and palm.
With all joints at zero the arm points up and the palm faces +x; A1, A3, A5, A7 turn round z, A2 and A6 round y, A4
round -y.
"""

import runpy
from pathlib import Path

import numpy as np

from scaffoldlab.usd.shapes import capsule, cylinder
from scaffoldlab.usd.writer import UsdWriter

HAND = runpy.run_path(str(Path(__file__).parents[1] / "allegro_floating" / "build.py"))

STEPS = (0.1575, 0.2025, 0.2045, 0.2155, 0.1845, 0.2155, 0.081)
"""From each joint's origin to the next one's along z, the first from the floor [m]."""
FLANGE = 0.126 - STEPS[6]
"""From A7's origin, 81 mm above A6, to the flange [m]."""
AXES = ("Z", "Y", "Z", "-Y", "Z", "Y", "Z")
LIMITS_DEG = (170, 120, 170, 120, 170, 120, 175)
BASE_MASS, MASSES = 5.0, (5.76, 6.35, 3.5, 3.5, 3.5, 1.8, 1.2)
RADII = (0.085, 0.085, 0.075, 0.075, 0.07, 0.065, 0.05)
ADAPTER = 0.015
"""Thickness of the plate on the flange [m]."""
PALM = (0.0205, 0.0, 0.095)
"""Palm origin above the plate: its box is centred on the flange [m]."""
PEDESTAL = 0.75
HALF_TURN = (0.0, 0.0, 1.0, 0.0)
"""Round z, on both sides of a joint: its axis is then -y."""


def build(folder: Path, license: str) -> None:
    usd = UsdWriter(folder / "iiwa_allegro.usda", license=license)
    usd.articulation()
    HAND["materials"](usd)
    usd.friction("metal", static=1.0, dynamic=1.0, combine="average")
    usd.surface("white", color=(0.78, 0.79, 0.80), roughness=0.35)
    usd.surface("orange", color=(0.75, 0.23, 0.03), roughness=0.4)
    _base(usd)
    height, parent = 0.0, "arm_base"
    for number, step in enumerate(STEPS):
        height += step
        body, turned = f"arm_link_{number + 1}", AXES[number] == "-Y"
        _link(usd, body, number, height)
        limit = np.radians(LIMITS_DEG[number])
        usd.joint(
            f"arm_{number + 1}", "revolute", parent, body, axis=AXES[number][-1], limits=(-limit, limit),
            position=(0, 0, step), quat_xyzw=HALF_TURN if turned else (0, 0, 0, 1),
            child_quat_xyzw=HALF_TURN if turned else (0, 0, 0, 1),
        )  # fmt: skip
        parent = body
    mount = (PALM[0], PALM[1], FLANGE + ADAPTER + PALM[2])
    usd.body("palm", mass=HAND["PALM_MASS"], position=(mount[0], mount[1], height + mount[2]), gravity=False)
    usd.joint("flange_palm", "fixed", parent, "palm", position=mount)
    HAND["palm"](usd)
    HAND["fingers"](usd)
    usd.save()


def _base(usd: UsdWriter) -> None:
    usd.body("arm_base", mass=BASE_MASS, gravity=False)
    usd.joint("world_base", "fixed", None, "arm_base")
    usd.collider("arm_base/collider", "cylinder", size=0.1, length=0.14, position=(0, 0, 0.07), friction="metal")
    usd.visual("arm_base/shell", cylinder(0.1, 0.14), surface="white", position=(0, 0, 0.07))
    usd.visual("arm_base/pedestal", cylinder(0.12, PEDESTAL), surface="shell", position=(0, 0, -PEDESTAL / 2))


def _link(usd: UsdWriter, body: str, number: int, height: float) -> None:
    """A capsule from this joint to the next; its mass is spread over it."""
    usd.body(body, mass=MASSES[number], position=(0, 0, height), gravity=False)
    radius, length = RADII[number], STEPS[number + 1] if number < 6 else FLANGE
    if number == 6:
        shape, middle = cylinder(radius, length + ADAPTER), (0, 0, (length + ADAPTER) / 2)
        usd.collider(
            f"{body}/collider", "cylinder", size=radius, length=length + ADAPTER, position=middle, friction="metal"
        )
    else:
        shape, middle = capsule(radius, length), (0, 0, length / 2)
        usd.collider(f"{body}/collider", "capsule", size=radius, length=length, position=middle, friction="metal")
    usd.visual(f"{body}/shell", shape, surface="orange" if number % 2 else "white", position=middle)
