"""A kitchen counter, static: a stone top 0.9 m above the floor on two cupboards, and a tiled wall behind it."""

from pathlib import Path

from scaffoldlab.usd.shapes import cylinder, rounded_box, stone_texture
from scaffoldlab.usd.writer import UsdWriter

HEIGHT, TOP = 0.90, (0.80, 1.40, 0.04)


def build(folder: Path, license: str) -> None:
    usd = UsdWriter(folder / "counter.usda", license=license)
    stone = usd.friction("stone", static=1.0, dynamic=1.0, combine="average")
    # The collider is a thick block: nothing tunnels through it.
    usd.collider("collider", "box", size=(TOP[0], TOP[1], 0.20), position=(0, 0, HEIGHT - 0.10), friction=stone)
    stone_texture(folder / "stone.png", base=(203, 200, 194), seed=2)
    top = usd.surface("top", color=(0.6, 0.58, 0.55), roughness=0.4, texture="./stone.png")
    white = usd.surface("white", color=(0.72, 0.74, 0.72), roughness=0.6)
    blue = usd.surface("blue", color=(0.13, 0.22, 0.30), roughness=0.6)
    steel = usd.surface("steel", color=(0.55, 0.56, 0.58), roughness=0.25, metallic=1.0)
    usd.visual("top", rounded_box(TOP, 0.008), surface=top, position=(0, 0, HEIGHT - TOP[2] / 2))
    for side, y in (("left", 0.345), ("right", -0.345)):
        usd.visual(f"cupboard_{side}", rounded_box((0.72, 0.68, 0.84), 0.006), surface=blue, position=(0.02, y, 0.43))
        knob = cylinder(0.012, 0.03)
        usd.visual(
            f"knob_{side}",
            knob,
            surface=steel,
            position=(-0.355, y * 0.2, 0.72),
            quat_xyzw=(0, 0.70710678, 0, 0.70710678),
        )
    tile = rounded_box((0.02, 0.195, 0.095), 0.004, subdivisions=1)
    for row in range(2):
        for column in range(-4, 5):
            y = 0.2 * column + (0.1 if row % 2 else 0)
            if abs(y) < 0.75:
                usd.visual(
                    f"tile_{row}_{column + 4}", tile, surface=white, position=(0.41, y, HEIGHT + 0.05 + 0.1 * row)
                )
    usd.save()
