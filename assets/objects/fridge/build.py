"""A tall fridge, 0.60 m wide, 0.60 m deep and 1.45 m high, whose door opens by up to 110 deg about its left edge.

These are the outer sizes that fitted kitchens leave for a free-standing larder fridge. The door weighs 12 kg with what
stands in it. A vertical bar of 0.40 m, 18 mm thick, stands 6.5 cm off the door: room for a finger of 24 mm. The
magnetic seal is left out; its 10 to 30 N at the handle are gone after the first millimetres.
"""

from pathlib import Path

import numpy as np

from scaffoldlab.usd.shapes import cylinder, rounded_box
from scaffoldlab.usd.writer import UsdWriter

WIDTH, DEPTH, HEIGHT, WALL, FOOT = 0.60, 0.60, 1.45, 0.04, 0.06
DOOR, GAP = 0.05, 0.006
OPEN = np.radians(110)
BAR_LENGTH, BAR_RADIUS, BAR_REACH, BAR_Y, BAR_Z = 0.40, 0.009, 0.065, -0.235, 0.95
ALONG_X = (0, 0.70710678, 0, 0.70710678)


def build(folder: Path, license: str) -> None:
    usd = UsdWriter(folder / "fridge.usda", license=license)
    usd.articulation()
    enamel = usd.friction("enamel", static=1.0, dynamic=1.0, combine="average")
    white = usd.surface("white", color=(0.72, 0.74, 0.75), roughness=0.5)
    cream = usd.surface("cream", color=(0.88, 0.84, 0.74), roughness=0.4)
    seal = usd.surface("seal", color=(0.10, 0.11, 0.12), roughness=0.8)
    glass = usd.surface("glass", color=(0.55, 0.70, 0.72), roughness=0.2)
    steel = usd.surface("steel", color=(0.06, 0.06, 0.07), roughness=0.3, metallic=1.0)

    # The front of the body is the plane x = 0; the asset's origin is on the floor below it.
    usd.body("body", mass=45.0)
    usd.joint("world_body", "fixed", None, "body")
    middle, tall = FOOT + (HEIGHT - FOOT) / 2, HEIGHT - FOOT
    panels = {
        "left": ((DEPTH, WALL, tall), (DEPTH / 2, WIDTH / 2 - WALL / 2, middle), cream),
        "right": ((DEPTH, WALL, tall), (DEPTH / 2, -WIDTH / 2 + WALL / 2, middle), cream),
        "top": ((DEPTH, WIDTH, WALL), (DEPTH / 2, 0, HEIGHT - WALL / 2), cream),
        "bottom": ((DEPTH, WIDTH, WALL), (DEPTH / 2, 0, FOOT + WALL / 2), cream),
        "back": ((WALL, WIDTH - 2 * WALL, tall - 2 * WALL), (DEPTH - WALL / 2, 0, middle), white),
        "foot": ((DEPTH - 0.06, WIDTH - 0.04, FOOT), (DEPTH / 2 + 0.03, 0, FOOT / 2), seal),
    }
    for row in range(3):
        size = (DEPTH - WALL - 0.06, WIDTH - 2 * WALL, 0.012)
        panels[f"shelf_{row}"] = (size, (0.06 + size[0] / 2, 0, 0.42 + 0.30 * row), glass)
    for name, (size, position, look) in panels.items():
        usd.collider(f"body/{name}_collider", "box", size=size, position=position, friction=enamel)
        usd.visual(f"body/{name}", rounded_box(size, 0.005), surface=look, position=position)

    # The door's frame is on its hinge, in the plane of the body's front, at floor height.
    hinge = (0.0, WIDTH / 2, 0.0)
    usd.body("door", mass=12.0, position=hinge)
    usd.joint("door_joint", "revolute", "body", "door", axis="Z", limits=(-OPEN, 0.0), position=hinge)
    slab = dict(position=(-GAP - DOOR / 2, -WIDTH / 2, middle))
    size = (DOOR, WIDTH, tall - 0.01)
    usd.collider("door/slab_collider", "box", size=size, friction=enamel, **slab)
    usd.visual("door/slab", rounded_box(size, 0.012), surface=cream, **slab)
    usd.visual(
        "door/gasket", rounded_box((GAP, WIDTH - 0.03, tall - 0.05), 0.0025, subdivisions=1), surface=seal,
        position=(-GAP / 2, -WIDTH / 2, middle),
    )  # fmt: skip
    face, y = -GAP - DOOR, BAR_Y - WIDTH / 2
    bar = dict(position=(face - BAR_REACH, y, BAR_Z))
    usd.collider("door/handle_collider", "capsule", size=BAR_RADIUS, length=BAR_LENGTH, friction=enamel, **bar)
    usd.visual("door/handle", cylinder(BAR_RADIUS, BAR_LENGTH + 0.018), surface=steel, **bar)
    for side, end in (("top", 1), ("bottom", -1)):
        post = dict(position=(face - BAR_REACH / 2, y, BAR_Z + end * 0.45 * BAR_LENGTH), quat_xyzw=ALONG_X)
        usd.collider(f"door/post_{side}_collider", "capsule", size=0.007, length=BAR_REACH, friction=enamel, **post)
        usd.visual(f"door/post_{side}", cylinder(0.007, BAR_REACH), surface=steel, **post)
    usd.save()
