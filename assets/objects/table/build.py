"""A table, static: a wooden top of 80 x 140 cm, 75 cm above the floor as tables are, on four legs."""

from pathlib import Path

from scaffoldlab.usd.shapes import rounded_box, wood_texture
from scaffoldlab.usd.writer import UsdWriter

HEIGHT, TOP, LEG = 0.75, (0.80, 1.40, 0.035), 0.06


def build(folder: Path, license: str) -> None:
    usd = UsdWriter(folder / "table.usda", license=license)
    wood = usd.friction("wood", static=1.0, dynamic=1.0, combine="average")
    # The collider is a thick block: nothing tunnels through it.
    usd.collider("collider", "box", size=(TOP[0], TOP[1], 0.20), position=(0, 0, HEIGHT - 0.10), friction=wood)
    wood_texture(folder / "ash.png", light=(222, 205, 178), dark=(188, 162, 126), planks=4, seed=5)
    top = usd.surface("top", color=(0.70, 0.60, 0.46), roughness=0.6, texture="./ash.png")
    grey = usd.surface("grey", color=(0.16, 0.17, 0.18), roughness=0.5)
    usd.visual("top", rounded_box(TOP, 0.006), surface=top, position=(0, 0, HEIGHT - TOP[2] / 2))
    length = HEIGHT - TOP[2]
    for side, y in (("left", TOP[1] / 2 - 0.08), ("right", -TOP[1] / 2 + 0.08)):
        for end, x in (("front", -TOP[0] / 2 + 0.08), ("back", TOP[0] / 2 - 0.08)):
            leg = rounded_box((LEG, LEG, length), 0.006)
            usd.visual(f"leg_{end}_{side}", leg, surface=grey, position=(x, y, length / 2))
    usd.save()
