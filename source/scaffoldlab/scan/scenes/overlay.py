"""Lays the simulated scene over the real pictures, and measures in pixels how far apart the two are."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from scaffoldlab.scan.render import Render, Renderer
from scaffoldlab.scan.scenes.placement import seen_mask

if TYPE_CHECKING:
    from scaffoldlab.camera import Camera
    from scaffoldlab.scan.captures.capture import Frame

COLORS = ((230, 159, 0), (0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (86, 180, 233))
"""Colours that stay apart for colour-blind readers (Okabe and Ito, 2008)."""
VISIBLE_MIN = 30
"""Pixels of an object that a frame must show for it to be measured in it."""


@dataclass(frozen=True)
class Reprojection:
    """How far an object in simulation is from where the pictures show it.

    Attributes:
        contour_px: Mean distance between the two outlines, over frames the median [px].
        centroid_px: Distance between the middles of the two areas, over frames the median [px].
        overlap: Intersection over union of the two areas, over frames the median.
        frames: Frames in which the object was measured.
    """

    contour_px: float
    centroid_px: float
    overlap: float
    frames: int


def reprojection(frames: Sequence["Frame"], renderer: Renderer, names: Sequence[str]) -> dict[str, Reprojection]:
    """The reprojection error of every object that the frames have masks of.

    Args:
        frames: Frames with masks.
        renderer: The simulated scene in the capture's world; what hides an object in it is not counted as seen.
        names: Names of the objects.
    """
    errors: dict[str, list[tuple[float, float, float]]] = {name: [] for name in names}
    for frame in frames:
        masks = {name: mask for name in names if (mask := seen_mask(frame, name)) is not None}
        if not masks:
            continue
        body = renderer.render(frame.camera).body
        for name, mask in masks.items():
            simulated = body == renderer.names.index(name)
            if min(mask.sum(), simulated.sum()) >= VISIBLE_MIN:
                errors[name].append(silhouette_error(mask, simulated))
    return {
        name: Reprojection(*(float(value) for value in np.median(found, axis=0)), frames=len(found))
        for name, found in errors.items()
        if found
    }


def silhouette_error(real: np.ndarray, simulated: np.ndarray) -> tuple[float, float, float]:
    """Mean distance of the outlines both ways [px], distance of the middles [px], and overlap, of two areas.

    Where an area is cut off by the picture's border, the border is no outline.
    """
    from scipy.ndimage import distance_transform_edt

    edges = [outline(area) for area in (real, simulated)]
    away = [np.asarray(distance_transform_edt(~edge)) for edge in edges]
    contour = np.concatenate((away[1][edges[0]], away[0][edges[1]])).mean()
    middles = [np.argwhere(area).mean(0) for area in (real, simulated)]
    overlap = (real & simulated).sum() / (real | simulated).sum()
    return float(contour), float(np.linalg.norm(middles[0] - middles[1])), float(overlap)


def outline(area: np.ndarray) -> np.ndarray:
    """The pixels of an area that touch its outside, shape (height, width), bool."""
    from scipy.ndimage import binary_erosion

    return area & ~np.asarray(binary_erosion(area, border_value=1), bool)


def draw_overlay(real: np.ndarray, render: Render, names: Sequence[str], objects: Sequence[str]) -> np.ndarray:
    """The real picture, its lower right half blended with the simulated one, the simulated outlines drawn all over it.

    Args:
        real: The real picture, shape (height, width, 3), uint8.
        render: The simulated one.
        names: Names of the rendered bodies, by their index.
        objects: Those to outline and to name.
    """
    from PIL import Image, ImageDraw

    height, width = render.body.shape
    u, v = np.meshgrid(np.arange(width) / width, np.arange(height) / height)
    share = np.where((u + v > 1) & (render.body >= 0), 0.75, 0.0)[..., None]
    picture = (real * (1 - share) + render.rgb * share).round().astype(np.uint8)
    for number, name in enumerate(objects):
        edge = _thick(outline(render.body == names.index(name)), max(1, height // 400))
        picture[edge] = COLORS[number % len(COLORS)]
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    draw.line(((width, 0), (0, height)), fill=(255, 255, 255), width=1)
    size = max(10, height // 30)
    for number, name in enumerate(objects):
        seen = np.argwhere(render.body == names.index(name))
        if len(seen):
            top, left = seen.min(0)[0], seen.mean(0)[1]
            _label(draw, (left, top - 0.3 * size), name, COLORS[number % len(COLORS)], size)
    return np.asarray(image)


def turntable(
    renderer: Renderer, camera: "Camera", middle: np.ndarray, up: np.ndarray, *, pictures: int = 36
) -> list[np.ndarray]:
    """Pictures of the scene from all around, at the camera's distance and slope, shape (height, width, 3) each.

    Args:
        renderer: The scene.
        camera: Camera to begin at.
        middle: Point to turn about, shape (3,).
        up: Axis to turn about, shape (3,).
        pictures: Pictures of a full turn.
    """
    from scipy.spatial.transform import Rotation

    turned = []
    for angle in np.linspace(0, 2 * np.pi, pictures, endpoint=False):
        turn = np.eye(4)
        turn[:3, :3] = Rotation.from_rotvec(angle * up).as_matrix()
        turn[:3, 3] = middle - turn[:3, :3] @ middle
        turned.append(renderer.render(replace(camera, pose_ec=turn @ camera.pose_ec), smooth=2).rgb)
    return turned


def _thick(edge: np.ndarray, radius: int) -> np.ndarray:
    from scipy.ndimage import binary_dilation

    return binary_dilation(edge, iterations=radius - 1) if radius > 1 else edge


def _label(draw, at: tuple[float, float], text: str, color: tuple[int, int, int], size: int) -> None:
    """A name in a box of its colour, its lower middle at a pixel."""
    from PIL import ImageFont

    font = ImageFont.load_default(size)
    left, top, right, bottom = draw.textbbox(at, text, font=font, anchor="mb")
    draw.rectangle((left - 3, top - 2, right + 3, bottom + 2), fill=color)
    light = sum(color) < 380
    draw.text(at, text, fill=(255, 255, 255) if light else (0, 0, 0), font=font, anchor="mb")
