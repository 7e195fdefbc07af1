"""A kitchen counter with a sink, static: a stone top at 0.9 m round a steel basin of 36 x 36 x 16 cm, and a tap."""

from pathlib import Path

import trimesh

from scaffoldlab.usd.shapes import capsule, cylinder, rounded_box, stone_texture, with_planar_uv
from scaffoldlab.usd.writer import UsdWriter

HEIGHT, TOP = 0.90, (0.80, 1.40, 0.04)
BASIN, BASIN_X, DEPTH, BLOCK = (0.36, 0.36), -0.02, 0.16, 0.20
ALONG_X = (0, 0.70710678, 0, 0.70710678)


def build(folder: Path, license: str) -> None:
    usd = UsdWriter(folder / "sink_counter.usda", license=license)
    stone = usd.friction("stone", static=1.0, dynamic=1.0, combine="average")
    stone_texture(folder / "stone.png", base=(203, 200, 194), seed=2)
    top = usd.surface("top", color=(0.6, 0.58, 0.55), roughness=0.4, texture="./stone.png")
    white = usd.surface("white", color=(0.72, 0.74, 0.72), roughness=0.6)
    blue = usd.surface("blue", color=(0.13, 0.22, 0.30), roughness=0.6)
    steel = usd.surface("steel", color=(0.50, 0.51, 0.53), roughness=0.3, metallic=1.0)
    dark = usd.surface("dark", color=(0.03, 0.03, 0.03), roughness=0.6)

    for name, (size, (x, y)) in _around_basin().items():
        # Thick blocks: nothing tunnels through them, and their sides are the walls of the basin.
        block = dict(size=(*size, BLOCK), position=(x, y, HEIGHT - BLOCK / 2))
        usd.collider(f"{name}_collider", "box", friction=stone, **block)
        slab = trimesh.creation.box((*size, TOP[2])).apply_translation((x, y, HEIGHT - TOP[2] / 2))
        slab.unmerge_vertices()  # flat faces
        usd.visual(name, with_planar_uv(slab, scale=TOP[1]), surface=top)
    floor = dict(size=(*BASIN, BLOCK - DEPTH), position=(BASIN_X, 0, HEIGHT - (DEPTH + BLOCK) / 2))
    usd.collider("floor_collider", "box", friction=stone, **floor)
    _basin(usd, steel, dark)
    _tap(usd, steel)
    for side, y in (("left", 0.345), ("right", -0.345)):
        usd.visual(f"cupboard_{side}", rounded_box((0.72, 0.68, 0.70), 0.006), surface=blue, position=(0.02, y, 0.36))
        place = dict(position=(-0.355, y * 0.2, 0.62), quat_xyzw=ALONG_X)
        usd.visual(f"knob_{side}", cylinder(0.012, 0.03), surface=steel, **place)
    usd.visual("apron", rounded_box((0.02, 1.36, 0.15), 0.004), surface=blue, position=(-0.35, 0, 0.785))
    tile = rounded_box((0.02, 0.195, 0.095), 0.004, subdivisions=1)
    for row in range(2):
        for column in range(-4, 5):
            y = 0.2 * column + (0.1 if row % 2 else 0)
            if abs(y) < 0.75:
                place = (0.41, y, HEIGHT + 0.05 + 0.1 * row)
                usd.visual(f"tile_{row}_{column + 4}", tile, surface=white, position=place)
    usd.save()


def _around_basin() -> dict[str, tuple[tuple[float, float], tuple[float, float]]]:
    """Size and centre over ground of the four pieces of the top round the basin [m]."""
    front, back = BASIN_X - BASIN[0] / 2, BASIN_X + BASIN[0] / 2
    wide = (TOP[1] - BASIN[1]) / 2
    return {
        "left": ((TOP[0], wide), (0, (BASIN[1] + wide) / 2)),
        "right": ((TOP[0], wide), (0, -(BASIN[1] + wide) / 2)),
        "front": ((front + TOP[0] / 2, BASIN[1]), ((front - TOP[0] / 2) / 2, 0)),
        "back": ((TOP[0] / 2 - back, BASIN[1]), ((back + TOP[0] / 2) / 2, 0)),
    }


def _basin(usd: UsdWriter, steel: str, dark: str) -> None:
    """Steel sheet inside the basin, a rim round it and a drain."""
    sheet, (a, b) = 0.004, BASIN
    middle, bottom = HEIGHT - DEPTH / 2, HEIGHT - DEPTH
    for name, size, position in (
        ("floor", (a, b, sheet), (BASIN_X, 0, bottom + sheet / 2)),
        ("wall_front", (sheet, b, DEPTH), (BASIN_X - a / 2 + sheet / 2, 0, middle)),
        ("wall_back", (sheet, b, DEPTH), (BASIN_X + a / 2 - sheet / 2, 0, middle)),
        ("wall_left", (a, sheet, DEPTH), (BASIN_X, b / 2 - sheet / 2, middle)),
        ("wall_right", (a, sheet, DEPTH), (BASIN_X, -b / 2 + sheet / 2, middle)),
        ("rim_front", (0.014, b + 0.028, 0.002), (BASIN_X - a / 2 - 0.007, 0, HEIGHT)),
        ("rim_back", (0.014, b + 0.028, 0.002), (BASIN_X + a / 2 + 0.007, 0, HEIGHT)),
        ("rim_left", (a, 0.014, 0.002), (BASIN_X, b / 2 + 0.007, HEIGHT)),
        ("rim_right", (a, 0.014, 0.002), (BASIN_X, -b / 2 - 0.007, HEIGHT)),
    ):
        usd.visual(f"basin_{name}", rounded_box(size, 0.0009, subdivisions=1), surface=steel, position=position)
    usd.visual("drain", cylinder(0.04, 0.002), surface=dark, position=(BASIN_X, 0, bottom + sheet + 0.001))


def _tap(usd: UsdWriter, steel: str) -> None:
    """A pillar and a spout behind the basin, out of the way of a hand that carries something across."""
    for name, radius, length, position, quat_xyzw in (
        ("pillar", 0.016, 0.14, (0.30, 0, HEIGHT + 0.07), (0, 0, 0, 1)),
        ("spout", 0.011, 0.12, (0.24, 0, HEIGHT + 0.14), ALONG_X),
    ):
        place = dict(position=position, quat_xyzw=quat_xyzw)
        usd.collider(f"{name}_collider", "capsule", size=radius, length=length, friction="stone", **place)
        usd.visual(name, capsule(radius, length), surface=steel, **place)
    usd.visual(
        "lever", capsule(0.006, 0.06), surface=steel, position=(0.31, 0.03, HEIGHT + 0.16), quat_xyzw=(-0.6, 0, 0, 0.8)
    )
