"""Draws a plan on the picture that it was made from: tracks, ends and names, and sheets of such pictures."""

import io
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from scaffoldlab.camera import RgbdImage
from scaffoldlab.errors import ScaffoldError
from scaffoldlab.files import write_atomic
from scaffoldlab.plans.plan import Plan, interpolate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Text

# Colours that stay apart for colour-blind readers (Okabe and Ito, 2008); the hand has the first.
_HAND = "#E69F00"
_KEYPOINTS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#F0E442")
_INK, _PAPER = "#14181d", "#ffffff"


def draw_plan(
    image: RgbdImage, plan: Plan, *, steps: int = 120, path: str | os.PathLike[str] | None = None
) -> np.ndarray:
    """The picture with the plan on it, shape (height, width, 3), uint8, as large as the picture.

    A track runs from pale and thin at its start (a ring) to full and broad at its end (an arrow head); a keypoint at
    rest is a dot in a ring. The hand's track is orange. What the camera cannot see is named in the corner.

    Args:
        image: Picture of the initial state.
        plan: Plan in the env frame of the picture's camera.
        steps: Points on each track, for the gradient.
        path: PNG file to write as well.
    """
    points_e = np.concatenate((plan.keypoints_e, plan.wrist_e[:, None, :3]), 1)
    tracks = np.moveaxis(image.camera.project(interpolate(points_e, steps)), 0, 1)  # (K + 1, steps, 2)
    names = [*(k.name for k in plan.keypoints), "hand"]
    colors = [*(_KEYPOINTS[k % len(_KEYPOINTS)] for k in range(len(plan.keypoints))), _HAND]
    size = np.array((image.camera.width, image.camera.height))
    seen = [np.flatnonzero(((track >= 0) & (track <= size)).all(-1)) for track in tracks]
    with _canvas(image.rgb) as (axes, result):
        unit = size.min() / 100
        for k in np.argsort([name != "hand" for name in names], kind="stable"):
            if len(seen[k]):
                _draw_track(axes, tracks[k], colors[k], unit)
        anchors = {k: tracks[k][visible[0]] for k, visible in enumerate(seen) if len(visible)}
        _draw_labels(axes, {names[k]: (anchors[k], colors[k]) for k in anchors}, tracks, unit)
        hidden = [name for name, visible in zip(names, seen, strict=True) if not len(visible)]
        if hidden:
            axes.text(unit, size[1] - unit, f"not in view: {', '.join(hidden)}", va="bottom", **_style(axes, 2.2 * unit))
    return _finished(result, path)
