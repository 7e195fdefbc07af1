"""A wooden cutting board of 30 x 22 x 1.6 cm, static."""

from pathlib import Path

from scaffoldlab.usd.shapes import rounded_box, wood_texture
from scaffoldlab.usd.writer import UsdWriter

SIZE = (0.22, 0.30, 0.016)


def build(folder: Path, license: str) -> None:
    usd = UsdWriter(folder / "cutting_board.usda", license=license)
    wood = usd.friction("wood", static=1.0, dynamic=1.0, combine="average")
    usd.collider("collider", "box", size=SIZE, friction=wood)
    wood_texture(folder / "wood.png", light=(226, 178, 120), dark=(176, 120, 68), planks=5, seed=1)
    look = usd.surface("planks", color=(0.7, 0.45, 0.24), roughness=0.7, texture="./wood.png")
    usd.visual("board", rounded_box(SIZE, 0.005), surface=look)
    usd.save()
