"""Whether pictures from different places agree about where the surfaces are: depth, poses and axes tested at once."""

import itertools
from collections.abc import Sequence

import numpy as np

from scaffoldlab.camera import Camera

MIN_BASELINE = 0.03
"""Cameras closer than this say nothing about the scale of the depth [m]."""

MIN_OVERLAP = 0.03
"""Share of the points that other pictures have to look at before their agreement means anything."""


def spread[T](items: Sequence[T], count: int) -> list[T]:
    """At most ``count`` items, evenly spaced, the first and the last among them."""
    picked = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return [items[i] for i in picked]


def overlap_agreement(pictures: Sequence[tuple[np.ndarray, Camera]], *, tolerance: float = 0.03) -> tuple[float, float]:
    """How well pictures from different places agree about where the surfaces are.

    Args:
        pictures: Depth [m], shape (height, width), 0 where nothing was measured, and camera.
        tolerance: Difference that still agrees, as a share of the depth.

    Returns:
        Share of points that another picture sees at the same depth, among those where another one looks; below 1 where
        surfaces hide each other, NaN where hardly any picture looks at what another one shows. And the share among all
        points: a wrong scale or pose may agree well, but in few places.
    """
    agreeing = seen = total = 0
    for (depth, camera), (other_depth, other) in itertools.permutations(pictures, 2):
        if np.linalg.norm(camera.pose_ec[:3, 3] - other.pose_ec[:3, 3]) < MIN_BASELINE:
            continue
        points_e = lift_grid(depth, camera, 1000)
        total += len(points_e)
        points_c = (points_e - other.pose_ec[:3, 3]) @ other.pose_ec[:3, :3]
        points_c = points_c[points_c[:, 2] > 1e-6]
        pixels = (points_c / points_c[:, 2:]) @ other.intrinsics[:2].T
        inside = ((pixels >= 0) & (pixels < (other.width, other.height))).all(-1)
        column, row = pixels[inside].astype(int).T
        there, expected = other_depth[row, column], points_c[inside, 2]
        valid = there > 0
        seen += int(valid.sum())
        agreeing += int((np.abs(there - expected) < tolerance * expected)[valid].sum())
    enough = seen > max(50, MIN_OVERLAP * total)
    return agreeing / seen if enough else float("nan"), agreeing / total if enough else 0.0


def lift_grid(depth: np.ndarray, camera: Camera, count: int) -> np.ndarray:
    """About ``count`` points of a depth image [m] on a grid of pixels, in the world frame [m], shape (K, 3)."""
    step = max(1, round(np.sqrt(depth.size / count)))
    row, column = np.mgrid[step // 2 : depth.shape[0] : step, step // 2 : depth.shape[1] : step].reshape(2, -1)
    z = depth[row, column]
    row, column, z = row[z > 0], column[z > 0], z[z > 0]
    rays_c = np.column_stack((column + 0.5, row + 0.5, np.ones(len(z)))) @ np.linalg.inv(camera.intrinsics).T
    return (rays_c * z[:, None]) @ camera.pose_ec[:3, :3].T + camera.pose_ec[:3, 3]
