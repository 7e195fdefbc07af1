"""A locksmith's hammer: a steel head of 300 g and 95 x 24 x 24 mm on a wooden handle of 28 cm and 80 g.

The handle is along y and the head, at its lower y end, along z with the face below; the origin is the centre of mass.
Put down face first it rests on an edge of the face and on the end of the handle, which then slopes by REST_DEG.
"""

from pathlib import Path

import numpy as np

from scaffoldlab.usd.shapes import capsule, cylinder, revolved, rounded_box
from scaffoldlab.usd.writer import UsdWriter

HEAD, HEAD_MASS = (0.024, 0.024, 0.095), 0.300
HANDLE_LENGTH, HANDLE_RADIUS, HANDLE_MASS = 0.28, 0.013, 0.080
MASS = HEAD_MASS + HANDLE_MASS
HEAD_Y = -HANDLE_MASS * HANDLE_LENGTH / 2 / MASS
"""Where the head is from the centre of mass [m]; the handle begins there."""
HANDLE_Y = HEAD_Y + HANDLE_LENGTH / 2
REST_DEG = float(np.degrees(np.arctan2(HEAD[2] / 2 - HANDLE_RADIUS, HANDLE_LENGTH - HEAD[1] / 2)))
ALONG_Y = (-0.70710678, 0, 0, 0.70710678)


def build(folder: Path, license: str) -> None:
    usd = UsdWriter(folder / "hammer.usda", license=license)
    usd.body("", mass=MASS, inertia=_inertia())
    steel = usd.friction("steel_contact", static=1.0, dynamic=1.0, combine="average")
    usd.collider("head_collider", "box", size=HEAD, position=(0, HEAD_Y, 0), friction=steel)
    stick = cylinder(HANDLE_RADIUS, HANDLE_LENGTH, sections=16).convex_hull
    place = dict(position=(0, HANDLE_Y, 0), quat_xyzw=ALONG_Y)
    usd.collider("handle_collider", "convex", mesh=stick, friction=steel, **place)

    brown = usd.surface("brown", color=(0.36, 0.17, 0.06), roughness=0.55)
    steel_look = usd.surface("steel", color=(0.30, 0.31, 0.33), roughness=0.3, metallic=1.0)
    end, r = HANDLE_LENGTH / 2, HANDLE_RADIUS
    grip = [(0, -end), (0.72 * r, -end), (0.72 * r, -0.4 * end), (0.86 * r, 0), (r, 0.5 * end), (r, end - 0.01)]
    usd.visual("handle", revolved([*grip, (0.8 * r, end), (0, end)]), surface=brown, **place)
    low, top = (HEAD[0], HEAD[1], 0.030), (HEAD[0] * 0.8, HEAD[1] * 0.8, 0.040)
    usd.visual("face", rounded_box(low, 0.003), surface=steel_look, position=(0, HEAD_Y, -HEAD[2] / 2 + low[2] / 2))
    usd.visual("cheek", rounded_box(top, 0.004), surface=steel_look, position=(0, HEAD_Y, 0))
    peen = rounded_box((HEAD[0] * 0.9, 0.010, 0.036), 0.004)
    usd.visual("peen", peen, surface=steel_look, position=(0, HEAD_Y, HEAD[2] / 2 - 0.018))
    usd.visual("wedge", capsule(0.004, 0.008), surface=brown, position=(0, HEAD_Y - 0.011, 0), quat_xyzw=ALONG_Y)
    usd.save()


def _inertia() -> tuple[float, float, float]:
    """Principal moments about the centre of mass [kg m^2]: a box, and a cylinder along y."""
    a, b, c = HEAD
    head = HEAD_MASS / 12 * np.array([b * b + c * c, a * a + c * c, a * a + b * b])
    along, across = HANDLE_RADIUS**2 / 2, HANDLE_RADIUS**2 / 4 + HANDLE_LENGTH**2 / 12
    handle = HANDLE_MASS * np.array([across, along, across])
    shift = HEAD_MASS * HEAD_Y**2 + HANDLE_MASS * HANDLE_Y**2
    return tuple((head + handle + shift * np.array([1, 0, 1])).tolist())
