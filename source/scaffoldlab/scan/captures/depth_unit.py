"""What a depth of 1 stands for, concluded from the images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scaffoldlab.errors import ScaffoldError
from scaffoldlab.scan.captures.frame import Frame
from scaffoldlab.scan.captures.overlap import overlap_agreement, spread


@dataclass(frozen=True)
class DepthUnit:
    """What a depth of 1 may stand for.

    Attributes:
        name: For messages.
        metres: Its size [m].
        nearest: Least median depth of a capture that was made with a camera of this unit [m].
        farthest: Largest one [m].
    """

    name: str
    metres: float
    nearest: float = 0.15
    farthest: float = 6.0

    def fits(self, median: float) -> bool:
        """Whether a median of the raw depth is plausible."""
        return self.nearest <= median * self.metres <= self.farthest


TUM = DepthUnit("1/5000 m (TUM)", 1 / 5000, nearest=0.4)  # a Kinect sees nothing nearer
D405 = DepthUnit("0.1 mm (D405)", 1e-4, nearest=0.07, farthest=1.2)
UNITS = {
    "u": (DepthUnit("millimetres", 1e-3), TUM, D405),
    "f": (DepthUnit("metres", 1.0), DepthUnit("millimetres", 1e-3)),
}
"""Units of whole numbers and of floats; the earlier is preferred where nothing tells them apart."""


def find_depth_unit(frames: Sequence[Frame], kind: str, *, posed: bool) -> tuple[float, str, bool]:
    """The unit of the depth images [m], the evidence in words, and whether it rules the other units out.

    The evidence is, the stronger first: cameras in different places that agree about the surfaces in one unit only;
    tracked objects as far away as their masks are deep; values that are all multiples of 5 or 10, as when millimetres
    are written in a finer unit; a median depth that is plausible in one unit only.

    Args:
        frames: At most six of them are read.
        kind: ``u`` for whole numbers, ``f`` for floats.
        posed: Whether their cameras' poses are known.

    Raises:
        ScaffoldError: No unit gives a plausible depth, or an image cannot be read.
    """
    looked_at = spread(frames, 6)
    depths = [f.raw_depth() for f in looked_at]
    raw = np.concatenate([d[d > 0] for d in depths])
    first = UNITS[kind][0]
    if not len(raw):
        return first.metres, f"nothing was measured in {len(depths)} images; {first.name} is assumed", False
    median = float(np.median(raw))
    plausible = [unit for unit in UNITS[kind] if unit.fits(median)]
    seen = f"the median of {len(depths)} depth images is {median:.4g}"
    if not plausible:
        read = ", ".join(f"{median * u.metres:.3g} m in {u.name}" for u in UNITS[kind])
        raise ScaffoldError(
            f"{frames[0].depth.parent}: {seen}, that is {read}; allowed: {first.nearest} to {first.farthest} m. "
            "Give the unit in metres, e.g. --depth-unit 0.001 for millimetres."
        )
    unit, *others = plausible
    if not others:
        return unit.metres, f"{seen}: {median * unit.metres:.2f} m in {unit.name}, implausible in other units", True
    chosen = (
        (_by_motion(looked_at, depths, plausible) if posed else None)
        or _by_object_poses(looked_at, depths, plausible)
        or _by_multiples(raw, plausible)
    )
    if chosen:
        unit, why = chosen
        return unit.metres, f"{seen}: {median * unit.metres:.2f} m in {unit.name}, because {why}", True
    read = " or ".join(f"{median * u.metres:.2f} m in {u.name}" for u in others)
    return unit.metres, f"{seen}: {median * unit.metres:.2f} m in {unit.name}; it could also be {read}", False


def _by_motion(frames: list[Frame], depths: list[np.ndarray], units: list[DepthUnit]) -> tuple[DepthUnit, str] | None:
    cameras = [f.camera for f in frames]
    confirmed = [
        overlap_agreement([(depth * unit.metres, camera) for depth, camera in zip(depths, cameras, strict=True)])[1]
        for unit in units
    ]
    second, best = np.argsort(confirmed)[-2:]
    if confirmed[best] < max(0.1, 1.5 * confirmed[second]):
        return None
    return units[best], (
        f"{100 * confirmed[best]:.0f} % of the points are confirmed by another picture, in {units[second].name} only "
        f"{100 * confirmed[second]:.0f} %"
    )


def _by_object_poses(
    frames: list[Frame], depths: list[np.ndarray], units: list[DepthUnit]
) -> tuple[DepthUnit, str] | None:
    ratios = []
    for frame, depth in zip(frames, depths, strict=True):
        for name in frame.object_poses.keys() & frame.masks.keys():
            inside = depth[frame.mask(name) & (depth > 0)]
            distance = frame.object_poses[name][2, 3]
            if len(inside) >= 20 and np.isfinite(distance) and distance > 0:
                ratios.append(distance / np.median(inside))
    if not ratios:
        return None
    ratio = float(np.median(ratios))
    unit = min(units, key=lambda u: abs(np.log(u.metres / ratio)))
    if abs(np.log(unit.metres / ratio)) > np.log(1.3):  # the origin of an object lies near its surface
        return None
    return unit, f"tracked objects are {ratio:.3g} m away for each 1 of depth in their masks"


def _by_multiples(raw: np.ndarray, units: list[DepthUnit]) -> tuple[DepthUnit, str] | None:
    values = np.unique(raw)
    if len(values) < 20 or (values % 1).any():
        return None
    step = int(np.gcd.reduce(values.astype(int)))
    unit = {5: TUM, 10: D405}.get(step)
    if unit is None or unit not in units:
        return None
    return unit, f"every value is a multiple of {step}, as when it was measured in millimetres"
