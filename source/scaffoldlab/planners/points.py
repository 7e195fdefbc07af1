"""How vision-language models write a point of an image, one convention per family of models."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from scaffoldlab.errors import unknown_name


@dataclass(frozen=True)
class PointConvention:
    """What the two numbers of a point mean.

    Attributes:
        name: Name to choose it by, e.g. ``"gemini"``.
        order: Which of the two numbers comes first.
        border: Maps width and height of the sent image [px] to the (x, y) of its lower right corner.
        phrase: Ends the sentence "Each point is ..." of the pointing prompt, with {width} and {height}.
        xml: The answer is ``<point x= y= alt=>`` elements, not JSON.
    """

    name: str
    order: Literal["xy", "yx"]
    border: Callable[[int, int], tuple[float, float]]
    phrase: str
    xml: bool = False

    def meaning(self, width: int, height: int) -> str:
        """What to call a point of an image of this size [px], e.g. ``"[y, x], normalized to 0-1000"``."""
        return self.phrase.format(width=width, height=height)

    def fractions(self, points: np.ndarray, width: int, height: int) -> np.ndarray:
        """Points as fractions of the image, right and down from its top left corner, shape (K, 2) -> (K, 2).

        Args:
            points: Points as the model wrote them, shape (K, 2).
            width: Width of the image that the model was sent [px].
            height: Height of that image [px].
        """
        points = np.asarray(points, float)
        xy = points[:, ::-1] if self.order == "yx" else points
        return xy / self.border(width, height)


def qwen25_size(width: int, height: int) -> tuple[int, int]:
    """Size that Qwen2.5-VL's image processor resizes to [px]: multiples of 28, area within its default limits."""
    patch, least, most = 28, 56 * 56, 16384 * 28 * 28
    size = [max(patch, round(side / patch) * patch) for side in (width, height)]
    if math.prod(size) > most:
        shrink = math.sqrt(width * height / most)
        size = [max(patch, math.floor(side / shrink / patch) * patch) for side in (width, height)]
    elif math.prod(size) < least:
        grow = math.sqrt(least / (width * height))
        size = [math.ceil(side * grow / patch) * patch for side in (width, height)]
    return size[0], size[1]


CONVENTIONS = {
    convention.name: convention
    for convention in (
        PointConvention("gemini", "yx", lambda w, h: (1000, 1000), "[y, x], normalized to 0-1000"),
        PointConvention("qwen", "xy", lambda w, h: (1000, 1000), "[x, y], normalized to 0-1000"),
        PointConvention("qwen2.5", "xy", qwen25_size, "[x, y] in absolute pixels of the image"),
        PointConvention("molmo", "xy", lambda w, h: (100, 100), "x and y in percent of the image", xml=True),
        PointConvention(
            "pixels", "xy", lambda w, h: (w, h), "[x, y] in pixels of the image, {width} wide and {height} high"
        ),
    )
}
"""Every convention by its name."""

_FAMILIES = (("gemini", "gemini"), ("molmo", "molmo"), (r"qwen[-_ ]?2[._-]5", "qwen2.5"), ("qwen", "qwen"))


def point_convention(name: str | None, model: str) -> PointConvention:
    """The convention of that name, or without one what the model's family uses; pixels for an unknown family.

    Raises:
        ScaffoldError: No convention has that name.
    """
    if name is None:
        name = next((family for pattern, family in _FAMILIES if re.search(pattern, model.lower())), "pixels")
    if name not in CONVENTIONS:
        raise unknown_name("point convention", name, CONVENTIONS)
    return CONVENTIONS[name]
