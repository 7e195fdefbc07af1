"""A dinner plate of 26 cm, static: a flat middle of 17 cm, a rim that rises to 2 cm; its origin is below its middle."""

from pathlib import Path

import numpy as np
import trimesh

from scaffoldlab.usd.shapes import revolved
from scaffoldlab.usd.writer import UsdWriter

RADIUS, WELL, THICKNESS, HEIGHT = 0.13, 0.085, 0.006, 0.020
SECTORS = 12


def build(folder: Path, license: str) -> None:
    usd = UsdWriter(folder / "plate.usda", license=license)
    china = usd.friction("china", static=1.0, dynamic=1.0, combine="average")
    well = [(0, 0), (WELL, 0), (WELL, THICKNESS), (0, THICKNESS)]
    usd.collider("well_collider", "convex", mesh=revolved(well, sections=2 * SECTORS).convex_hull, friction=china)
    for sector in range(SECTORS):
        usd.collider(f"rim_{sector}_collider", "convex", mesh=_rim(sector), friction=china)
    white = usd.surface("white", color=(0.80, 0.80, 0.78), roughness=0.25)
    blue = usd.surface("blue", color=(0.06, 0.16, 0.40), roughness=0.3)
    lip, edge = HEIGHT - THICKNESS, RADIUS - 0.008
    profile = [(0, 0), (WELL, 0), (RADIUS, lip), (RADIUS, HEIGHT), (WELL, THICKNESS), (0, THICKNESS)]
    usd.visual("plate", revolved(profile, sections=72), surface=white)
    rise = HEIGHT - (HEIGHT - THICKNESS) * (RADIUS - edge) / (RADIUS - WELL)
    ring = [(edge, rise), (RADIUS, HEIGHT), (RADIUS, HEIGHT + 0.0006), (edge, rise + 0.0006), (edge, rise)]
    usd.visual("ring", revolved(ring, sections=72), surface=blue)
    usd.save()


def _rim(sector: int) -> trimesh.Trimesh:
    """One convex piece of the sloping rim."""
    angles = 2 * np.pi * (sector + np.array([0, 1])) / SECTORS
    corners = [(WELL, 0), (WELL, THICKNESS), (RADIUS, HEIGHT - THICKNESS), (RADIUS, HEIGHT)]
    points = [(r * np.cos(a), r * np.sin(a), z) for a in angles for r, z in corners]
    return trimesh.convex.convex_hull(np.array(points))
