"""A half-full water bottle of half a litre: 65 mm wide, 205 mm tall as PET bottles are, 270 g; origin in the middle."""

from pathlib import Path

from scaffoldlab.usd.shapes import cylinder, revolved
from scaffoldlab.usd.writer import UsdWriter

RADIUS, HEIGHT, MASS = 0.0325, 0.205, 0.270
SHOULDER, NECK, NECK_RADIUS = 0.135, 0.178, 0.0135
"""Heights at which the body ends and the neck begins [m]."""


def build(folder: Path, license: str) -> None:
    usd = UsdWriter(folder / "bottle.usda", license=license)
    usd.body("", mass=MASS)
    plastic = usd.friction("plastic", static=1.0, dynamic=1.0, combine="average")
    middle, shoulder, neck = HEIGHT / 2, SHOULDER - HEIGHT / 2, NECK - HEIGHT / 2
    body = [(0, -middle), (RADIUS, -middle), (RADIUS, shoulder), (0, shoulder)]
    upper = [(0, shoulder), (RADIUS, shoulder), (NECK_RADIUS, neck), (NECK_RADIUS, middle), (0, middle)]
    # Sixteen sides: few enough for every engine, and the bottle stands on them.
    usd.collider("body_collider", "convex", mesh=revolved(body, sections=16).convex_hull, friction=plastic)
    usd.collider("neck_collider", "convex", mesh=revolved(upper, sections=16).convex_hull, friction=plastic)

    water = usd.surface("water", color=(0.16, 0.42, 0.62), roughness=0.15)
    label = usd.surface("label", color=(0.85, 0.86, 0.84), roughness=0.6)
    stripe = usd.surface("stripe", color=(0.05, 0.16, 0.42), roughness=0.6)
    skin = [(0, -middle), (RADIUS - 0.004, -middle), (RADIUS, -middle + 0.004)]
    for groove in (0.030, 0.040, 0.110, 0.120):  # ribs
        z = groove - middle
        skin += [(RADIUS, z - 0.003), (RADIUS - 0.0015, z), (RADIUS, z + 0.003)]
    skin += [(RADIUS, shoulder), (RADIUS * 0.86, shoulder + 0.015), (NECK_RADIUS, neck), (0, neck)]
    usd.visual("skin", revolved(skin), surface=water)
    usd.visual("label", cylinder(RADIUS + 0.0006, 0.055), surface=label, position=(0, 0, 0.075 - middle))
    usd.visual("stripe", cylinder(RADIUS + 0.0010, 0.016), surface=stripe, position=(0, 0, 0.075 - middle))
    usd.visual(
        "cap", cylinder(NECK_RADIUS + 0.001, HEIGHT - NECK), surface=stripe, position=(0, 0, (middle + neck) / 2)
    )
    usd.save()
