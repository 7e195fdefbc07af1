"""Draws a plan on the picture that it was made from: tracks, ends and names, and sheets of such pictures."""

import io
import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from scaffoldlab.camera import RgbdImage
from scaffoldlab.errors import ScaffoldError
from scaffoldlab.files import write_atomic
from scaffoldlab.plans.plan import Plan, interpolate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Text
    from matplotlib.typing import ColorType

# Colours that stay apart for colour-blind readers (Okabe and Ito, 2008).
_HAND = "#E69F00"
_KEYPOINTS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#F0E442")
_INK, _PAPER = "#14181d", "#ffffff"
_DPI = 64  # a power of two: width / _DPI * _DPI is the width, exactly


def draw_plan(
    image: RgbdImage, plan: Plan, *, steps: int = 120, path: str | os.PathLike[str] | None = None
) -> np.ndarray:
    """The picture with the plan on it, shape (height, width, 3), uint8, as large as the picture.

    A track runs from a ring at its start, pale and thin, to an arrow head at its end, full and broad; a keypoint at
    rest is a dot in a ring. The hand's track is orange. What starts and ends outside the picture is named in a corner.

    Args:
        image: Picture of the initial state.
        plan: Plan in the env frame of the picture's camera.
        steps: Points on each track, for the gradient.
        path: PNG file to write as well.
    """
    points_e = np.concatenate((plan.wrist_e[:, None, :3], plan.keypoints_e), 1)  # the hand first, below the others
    tracks = np.moveaxis(image.camera.project(interpolate(points_e, steps)), 0, 1)
    names = ["hand", *(k.name for k in plan.keypoints)]
    colors = [_HAND, *(_KEYPOINTS[k % len(_KEYPOINTS)] for k in range(len(plan.keypoints)))]
    size = np.array((image.camera.width, image.camera.height))
    seen = [track[((track >= 0) & (track <= size)).all(-1)] for track in tracks]
    visible = [k for k, points in enumerate(seen) if len(points)]
    hidden = [name for name, points in zip(names, seen, strict=True) if not len(points)]

    axes, unit = _canvas(image.rgb), size.min() / 100
    for k in visible:
        _draw_track(axes, tracks[k], colors[k], unit, 1.0 if k else 2.0)  # a broad hand shows behind what it carries
    labels = [(names[k], seen[k][0], colors[k]) for k in visible]
    if labels:
        _draw_labels(axes, labels, np.concatenate(seen), unit)
    if hidden:
        _text(axes, (unit, size[1] - unit), f"not in view: {', '.join(hidden)}", 2.4 * unit, ha="left", va="bottom")
    return _finish(axes, path)


def contact_sheet(
    pictures: Sequence[np.ndarray],
    *,
    captions: Sequence[str] | None = None,
    columns: int | None = None,
    path: str | os.PathLike[str] | None = None,
) -> np.ndarray:
    """Pictures side by side on white, row by row, shape (height, width, 3), uint8.

    Args:
        pictures: At least one, each of shape (height, width, 3), uint8; smaller ones are centred in their cell.
        captions: A line below each picture.
        columns: Pictures in a row; None: as square as possible.
        path: PNG file to write as well.
    """
    shapes = [np.shape(picture) for picture in pictures]
    if not shapes or any(len(shape) != 3 or shape[2] != 3 for shape in shapes):
        raise ScaffoldError(
            f"contact sheet: got pictures of shapes {shapes}; allowed: at least one (height, width, 3)."
        )
    if captions is not None and len(captions) != len(pictures):
        raise ScaffoldError(f"contact sheet: got {len(captions)} captions; allowed: {len(pictures)}, one a picture.")
    columns = min(columns or math.ceil(math.sqrt(len(pictures))), len(pictures))
    height, width = (max(shape[axis] for shape in shapes) for axis in (0, 1))
    unit = min(height, width) / 100
    gap, line = round(3 * unit), round(7 * unit) if captions else 0
    rows = math.ceil(len(pictures) / columns)
    sheet = np.full((gap + rows * (height + line + gap), gap + columns * (width + gap), 3), 255, np.uint8)
    corners = [(gap + r * (height + line + gap), gap + c * (width + gap)) for r in range(rows) for c in range(columns)]
    for picture, (top, left) in zip(pictures, corners, strict=False):
        y, x = top + (height - len(picture)) // 2, left + (width - picture.shape[1]) // 2
        sheet[y : y + len(picture), x : x + picture.shape[1]] = picture
    axes = _canvas(sheet)
    for caption, (top, left) in zip(captions or (), corners, strict=False):
        text = _text(axes, (left + width / 2, top + height + line / 2), caption, 3.6 * unit)
        text.set_fontsize(text.get_fontsize() * min(1, width / max(text.get_window_extent().width, 1)))
    return _finish(axes, path)


def _draw_track(axes: "Axes", track: np.ndarray, color: str, unit: float, breadth: float) -> None:
    """One track, shape (T, 2) [px]: light edge below all tracks, gradient, arrow head, ring above all tracks."""
    from matplotlib.collections import LineCollection

    def dot(diameter: float, face: str, edge: str) -> None:
        size, width = _points(diameter * unit), _points(0.5 * unit)
        axes.plot(*track[0], "o", markersize=size, mew=width, mfc=face, mec=edge, zorder=4)

    if np.linalg.norm(np.nanmax(track, 0) - np.nanmin(track, 0)) < 2 * unit:  # at rest
        for diameter, face, edge in ((3.4, _PAPER, _PAPER), (2.6, _PAPER, color), (0.9, color, color)):
            dot(diameter, face, edge)
        return
    segments, time = np.stack((track[:-1], track[1:]), 1), np.linspace(0, 1, len(track) - 1)
    widths = _points((0.4 + 0.5 * time) * breadth * unit)
    fading = [_mix(_PAPER, color, 0.5 + 0.5 * t) for t in time]
    for zorder, edge, colors in ((2, 0.5, _PAPER), (3, 0.0, fading)):
        lines = LineCollection(list(segments), linewidths=widths + _points(edge * unit), colors=colors, zorder=zorder)
        lines.set_capstyle("round")
        axes.add_collection(lines)
    head = _arrow_head(track, (1.2 + 1.4 * breadth) * unit)
    axes.fill(*head.T, facecolor=_PAPER, edgecolor=_PAPER, linewidth=_points(0.5 * unit), joinstyle="round", zorder=2)
    axes.fill(*head.T, facecolor=color, linewidth=0, zorder=3)
    for diameter, edge in ((2.8, _PAPER), (2.2, color)):
        dot(diameter, _PAPER, edge)


def _arrow_head(track: np.ndarray, length: float) -> np.ndarray:
    """Triangle at the end of a track, in the direction of its last stretch of that length, shape (3, 2) [px]."""
    away = np.linalg.norm(track - track[-1], axis=-1)
    back = track[np.flatnonzero(away >= 0.6 * length)[-1:]]
    forward = (track[-1] - back[0]) / np.linalg.norm(track[-1] - back[0]) if len(back) else np.array((0.0, 1.0))
    side = np.array((-forward[1], forward[0])) * 0.55 * length
    tip = track[-1] + 0.5 * length * forward
    return np.stack((tip, tip - length * forward + side, tip - length * forward - side))


def _draw_labels(axes: "Axes", labels: list[tuple[str, np.ndarray, str]], busy: np.ndarray, unit: float) -> None:
    """Names, as (text, anchor [px], colour), each at its free place beside its anchor.

    Places are tried on rings around the anchor. One that leaves the picture or covers another name is a last resort;
    covering busy points (M, 2) [px] or being nearer to another anchor counts more than being far away.
    """
    size = np.array((axes.get_xlim()[1], axes.get_ylim()[0]))
    anchors = np.stack([anchor for _, anchor, _ in labels])
    boxes: list[tuple[np.ndarray, np.ndarray]] = []  # placed: upper left and lower right corner [px]
    for k, (name, anchor, color) in enumerate(labels):
        ink = _mix(_INK, color, 0.55)
        text = _text(axes, anchor, name, 3.4 * unit, color=ink, weight="bold")
        extent = text.get_window_extent()
        half = np.array((extent.width, extent.height)) / 2 + 0.5 * unit

        def cost(center: np.ndarray, half: np.ndarray = half, k: int = k) -> float:
            low, high = center - half, center + half
            outside = max(0.0, *-low, *(high - size))
            overlaps = sum(bool((low < b).all() and (a < high).all()) for a, b in boxes)
            covered = ((busy > low - unit) & (busy < high + unit)).all(-1).sum()
            gaps = np.linalg.norm(anchors - anchors.clip(low, high), axis=-1)
            confused = (np.delete(gaps, k) < 1.5 * gaps[k]).sum()
            far = gaps[k] + 0.2 * np.linalg.norm(center - anchors[k])
            return 1e6 * (overlaps + (outside > 0)) + 1e3 * outside + (3 * covered + 20 * confused) * unit + far

        rings = np.stack([(math.cos(a), math.sin(a)) for a in np.deg2rad(np.arange(0, 360, 15) - 45)])
        places = [
            anchor + half * np.clip(math.sqrt(2) * ring, -1, 1) + radius * unit * ring
            for radius in (2, 4, 7, 11, 16)
            for ring in rings
        ]
        center = min(places, key=cost)
        text.set_position(center)
        boxes.append((center - half, center + half))
        nearest = anchor.clip(*boxes[-1])
        gap = np.linalg.norm(nearest - anchor)
        if gap > 3.5 * unit:  # a leader
            line = np.stack((anchor + (nearest - anchor) * 1.6 * unit / gap, nearest)).T
            for width, shade in ((0.7, _PAPER), (0.25, ink)):
                axes.plot(*line, color=shade, linewidth=_points(width * unit), zorder=4.5)


def _canvas(rgb: np.ndarray) -> "Axes":
    """Axes in pixels over a picture, (0, 0) its top left corner; no pyplot, so that threads can draw."""
    from matplotlib.figure import Figure

    height, width = rgb.shape[:2]
    figure = Figure((width / _DPI, height / _DPI), dpi=_DPI)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    axes.imshow(rgb, extent=(0, width, height, 0), aspect="auto", interpolation="nearest")
    axes.set(xlim=(0, width), ylim=(height, 0), autoscale_on=False)
    return axes


def _text(
    axes: "Axes",
    at: np.ndarray | tuple[float, float],
    text: str,
    size: float,
    *,
    color: "ColorType" = _INK,
    **style: Any,
) -> "Text":
    """Text of a font size [px] with a light halo, centred at a pixel."""
    from matplotlib.patheffects import withStroke

    halo = [withStroke(linewidth=_points(0.32 * size), foreground=_PAPER)]
    style = {"ha": "center", "va": "center", "family": "DejaVu Sans", "parse_math": False, "zorder": 5} | style
    return axes.text(at[0], at[1], text, fontsize=_points(size), color=color, path_effects=halo, **style)


def _points[T: (float, np.ndarray)](pixels: T) -> T:
    """Lengths in points, matplotlib's unit of line widths and fonts."""
    return pixels * 72 / _DPI


def _mix(first: str, second: str, share: float) -> tuple[float, float, float]:
    from matplotlib.colors import to_rgb

    r, g, b = np.array(to_rgb(first)) * (1 - share) + np.array(to_rgb(second)) * share
    return r, g, b


def _finish(axes: "Axes", path: str | os.PathLike[str] | None) -> np.ndarray:
    """Renders to pixels, shape (height, width, 3), uint8, and to a PNG file if there is a path."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas = FigureCanvasAgg(axes.get_figure(root=True))
    canvas.draw()
    pixels = np.array(canvas.buffer_rgba())[..., :3].copy()
    if path is not None:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "png")
        write_atomic(path, buffer.getvalue())
    return pixels
