"""A cabinet with three drawers that slide out by 0.40 m along -x, each with a bar handle on two posts."""

from pathlib import Path

from scaffoldlab.usd.shapes import cylinder, rounded_box, wood_texture
from scaffoldlab.usd.writer import UsdWriter

WIDTH, DEPTH, HEIGHT, WALL = 0.60, 0.50, 0.72, 0.018
DRAWER_HEIGHT, TRAVEL = 0.21, 0.40
HANDLE_LENGTH, HANDLE_RADIUS, HANDLE_REACH = 0.16, 0.006, 0.045
ALONG_Y, ALONG_X = (0.70710678, 0, 0, 0.70710678), (0, 0.70710678, 0, 0.70710678)
DRAWERS = ("drawer_bottom", "drawer_middle", "drawer_top")


def build(folder: Path, license: str) -> None:
    usd = UsdWriter(folder / "cabinet.usda", license=license)
    usd.articulation()
    wood = usd.friction("wood", static=1.0, dynamic=1.0, combine="average")
    metal = usd.friction("metal", static=1.0, dynamic=1.0, combine="average")
    wood_texture(folder / "oak.png", light=(214, 170, 118), dark=(158, 108, 62), planks=3, seed=3)
    oak = usd.surface("oak", color=(0.62, 0.42, 0.24), roughness=0.65, texture="./oak.png")
    cream = usd.surface("cream", color=(0.80, 0.77, 0.70), roughness=0.7)
    steel = usd.surface("steel", color=(0.08, 0.08, 0.09), roughness=0.3, metallic=1.0)

    # The front of the closed cabinet is the plane x = 0; the asset's origin is on the floor below it.
    usd.body("frame", mass=25.0)
    usd.joint("world_frame", "fixed", None, "frame")
    panels = {
        "left": ((DEPTH, WALL, HEIGHT), (DEPTH / 2, WIDTH / 2 - WALL / 2, HEIGHT / 2)),
        "right": ((DEPTH, WALL, HEIGHT), (DEPTH / 2, -WIDTH / 2 + WALL / 2, HEIGHT / 2)),
        "top": ((DEPTH + 0.03, WIDTH + 0.03, 0.025), (DEPTH / 2 - 0.005, 0, HEIGHT + 0.0125)),
        "bottom": ((DEPTH, WIDTH, 0.03), (DEPTH / 2, 0, 0.015)),
        "back": ((WALL, WIDTH, HEIGHT), (DEPTH - WALL / 2, 0, HEIGHT / 2)),
    }
    for name, (size, position) in panels.items():
        usd.collider(f"frame/{name}_collider", "box", size=size, position=position, friction=wood)
        usd.visual(f"frame/{name}", rounded_box(size, 0.004), surface=oak, position=position)

    for row, drawer in enumerate(DRAWERS):
        height = 0.045 + DRAWER_HEIGHT / 2 + row * (DRAWER_HEIGHT + 0.012)
        usd.body(drawer, mass=1.5, position=(0, 0, height))
        usd.joint(
            f"{drawer}_joint", "prismatic", "frame", drawer, axis="X", limits=(-TRAVEL, 0.0), position=(0, 0, height)
        )
        front = ((0.018, WIDTH - 2 * WALL - 0.006, DRAWER_HEIGHT), (0.009, 0, 0))
        tray = ((DEPTH - 0.08, WIDTH - 2 * WALL - 0.04, DRAWER_HEIGHT - 0.06), (0.018 + (DEPTH - 0.08) / 2, 0, -0.01))
        for part, (size, position), look in (("front", front, cream), ("tray", tray, oak)):
            usd.collider(f"{drawer}/{part}_collider", "box", size=size, position=position, friction=wood)
            usd.visual(f"{drawer}/{part}", rounded_box(size, 0.003), surface=look, position=position)
        bar = dict(position=(-HANDLE_REACH, 0, 0), quat_xyzw=ALONG_Y)
        usd.collider(
            f"{drawer}/handle_collider", "capsule", size=HANDLE_RADIUS, length=HANDLE_LENGTH, friction=metal, **bar
        )
        usd.visual(f"{drawer}/handle", cylinder(HANDLE_RADIUS, HANDLE_LENGTH + 0.012), surface=steel, **bar)
        for side, y in (("left", 0.5 * HANDLE_LENGTH), ("right", -0.5 * HANDLE_LENGTH)):
            post = dict(position=(-HANDLE_REACH / 2, y, 0), quat_xyzw=ALONG_X)
            usd.collider(
                f"{drawer}/post_{side}_collider", "capsule", size=0.005, length=HANDLE_REACH, friction=metal, **post
            )
            usd.visual(f"{drawer}/post_{side}", cylinder(0.005, HANDLE_REACH), surface=steel, **post)
    usd.save()
