"""What a depth of 1 stands for, concluded from the images."""

from collections.abc import Sequence

import numpy as np

from scaffoldlab.errors import ScaffoldError
from scaffoldlab.scan.frame import Frame
from scaffoldlab.scan.overlap import overlap_agreement, spread

PLAUSIBLE = (0.15, 6.0)
"""Range of the median depth of a capture [m]: nearer no depth camera measures, farther nothing is scanned."""

UNITS = {
    "u": {"millimetres": 1e-3, "1/5000 m (TUM)": 1 / 5000, "0.1 mm (D405)": 1e-4},
    "f": {"metres": 1.0, "millimetres": 1e-3},
}
"""Metres per unit of whole numbers and of floats, by name; the earlier is preferred where nothing tells them apart."""


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
    names = list(UNITS[kind])
    if not len(raw):
        return UNITS[kind][names[0]], f"nothing was measured in {len(depths)} images; {names[0]} is assumed", False
    median = float(np.median(raw))
    plausible = {n: u for n, u in UNITS[kind].items() if PLAUSIBLE[0] <= median * u <= PLAUSIBLE[1]}
    seen = f"the median of {len(depths)} depth images is {median:.4g}"
    if not plausible:
        read = ", ".join(f"{median * u:.3g} m in {n}" for n, u in UNITS[kind].items())
        raise ScaffoldError(
            f"{frames[0].depth.parent}: {seen}, that is {read}; allowed: {PLAUSIBLE[0]} to {PLAUSIBLE[1]} m. "
            "Give the unit in metres, e.g. --depth-unit 0.001 for millimetres."
        )
    if len(plausible) == 1:
        (name, unit), *_ = plausible.items()
        return unit, f"{seen}: {median * unit:.2f} m in {name}, not plausible in another unit", True
    chosen = (
        (_by_motion(looked_at, depths, plausible) if posed else None)
        or _by_object_poses(looked_at, depths, plausible)
        or _by_multiples(raw, plausible)
    )
    if chosen:
        name, why = chosen
        return plausible[name], f"{seen}: {median * plausible[name]:.2f} m in {name}, because {why}", True
    name, *others = plausible
    read = " or ".join(f"{median * plausible[n]:.2f} m in {n}" for n in others)
    return plausible[name], f"{seen}: {median * plausible[name]:.2f} m in {name}; it could also be {read}", False


def _by_motion(frames: list[Frame], depths: list[np.ndarray], units: dict[str, float]) -> tuple[str, str] | None:
    cameras = [f.camera for f in frames]
    shares = {
        name: overlap_agreement([(d * unit, c) for d, c in zip(depths, cameras, strict=True)])
        for name, unit in units.items()
    }
    ranked = sorted(((s, n) for n, s in shares.items() if np.isfinite(s)), reverse=True)
    if len(ranked) < len(units) or ranked[0][0] < 0.4 or ranked[0][0] < 1.5 * ranked[1][0]:
        return None
    (best, name), (second, other), *_ = ranked
    return name, f"{100 * best:.0f} % of it is seen alike from different places, {100 * second:.0f} % in {other}"


def _by_object_poses(frames: list[Frame], depths: list[np.ndarray], units: dict[str, float]) -> tuple[str, str] | None:
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
    name = min(units, key=lambda n: abs(np.log(units[n] / ratio)))
    if abs(np.log(units[name] / ratio)) > np.log(1.3):  # the origin of an object may lie beside its surface
        return None
    return name, f"tracked objects are {ratio:.3g} m away for each unit of depth in their masks"


def _by_multiples(raw: np.ndarray, units: dict[str, float]) -> tuple[str, str] | None:
    values = np.unique(raw)
    if len(values) < 20 or (values % 1).any():
        return None
    step = int(np.gcd.reduce(values.astype(int)))
    name = {5: "1/5000 m (TUM)", 10: "0.1 mm (D405)"}.get(step, "")
    return (
        (name, f"every value is a multiple of {step}, as when it was measured in millimetres")
        if name in units
        else None
    )
