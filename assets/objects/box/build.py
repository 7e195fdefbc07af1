"""A carton of biscuits lying on its face: 180 x 65 x 65 mm and 150 g as such cartons are; its origin is its middle."""

from pathlib import Path

from scaffoldlab.usd.shapes import rounded_box
from scaffoldlab.usd.writer import UsdWriter

SIZE, MASS = (0.065, 0.180, 0.065), 0.150


def build(folder: Path, license: str) -> None:
    usd = UsdWriter(folder / "box.usda", license=license)
    usd.body("", mass=MASS)
    carton = usd.friction("carton", static=1.0, dynamic=1.0, combine="average")
    usd.collider("collider", "box", size=SIZE, friction=carton)
    red = usd.surface("red", color=(0.50, 0.06, 0.05), roughness=0.6)
    cream = usd.surface("cream", color=(0.80, 0.74, 0.58), roughness=0.6)
    green = usd.surface("green", color=(0.08, 0.26, 0.10), roughness=0.6)
    x, y, z = SIZE
    usd.visual("carton", rounded_box(SIZE, 0.0015), surface=red)
    for name, size, surface in (
        ("label", (x * 0.72, y * 0.62, z), cream),  # shows on top
        ("label_side", (x, y * 0.62, z * 0.62), cream),
        ("leaf", (x * 0.30, y * 0.36, z), green),
        ("leaf_side", (x, y * 0.36, z * 0.28), green),
    ):
        out = 0.0008 if surface == green else 0.0004
        usd.visual(name, rounded_box(tuple(edge + out for edge in size), 0.0002, subdivisions=0), surface=surface)
    usd.save()
