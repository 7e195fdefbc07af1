"""Decides how long a length of 1 in a mesh file is, and says on what evidence."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import yaml

from scaffoldlab.errors import ScaffoldError
from scaffoldlab.scan.findings import Finding
from scaffoldlab.scan.objects.reading import METRES, Scan

TYPICAL_SIZE, SPREAD = 0.15, 0.9
"""Longest side of what a hand moves: median [m], and standard deviation of its logarithm."""
NAMED_SPREAD = 0.3
"""The same deviation for things of one name, such as mugs, see ``sizes.yaml``."""
NAMED_SIGMAS = 3.0
"""A thing that no unit brings nearer to its name's size than this is not what it is called."""
PRIOR = {"m": 0.45, "mm": 0.4, "cm": 0.15, "inch": 0.03}
"""How often a file without a unit turns out to be in each."""
SURE = 4.0
"""Odds of the likeliest unit against the next one above which nobody has to be asked."""
SEEN = (0.6, 1.25)
"""How long an object may look in pictures, as a share of its true length: a part is hidden, and edges are noisy."""


@dataclass(frozen=True)
class Units:
    """Metres that a length of 1 stands for, its name, and why."""

    scale: float
    name: str
    evidence: str
    finding: Finding


def decide_units(scan: Scan, *, given: str = "auto", size: float | None = None, name: str | None = None) -> Units:
    """The unit of a scan: what the user says, else what the file says, else what is likely for its size.

    Args:
        scan: The mesh.
        given: ``auto`` or a unit of :data:`METRES`.
        size: Longest side of the real object [m]; it settles every question.
        name: What the object is called; by default as its file.

    Raises:
        ScaffoldError: ``given`` is no unit, or the size is not positive.
    """
    corners = scan.mesh.vertices[np.isfinite(scan.mesh.vertices).all(1)]
    longest = float(np.ptp(corners, axis=0).max()) if len(corners) else 0.0
    if not longest > 0:
        raise ScaffoldError(f"{scan.path}: all points are in one place or not finite. Export the mesh again.")
    if size is not None:
        if not 0 < size < math.inf:
            raise ScaffoldError(f"--size {size:g}: allowed: a positive length [m].")
        return _units(size / longest, "of --size", f"the longest side is {size:g} m (--size)", longest)
    if given != "auto":
        if given not in METRES:
            raise ScaffoldError(f"--units {given}: allowed: auto, {', '.join(METRES)}.")
        return _units(METRES[given], given, "given with --units", longest)
    if scan.unit is not None:
        return _units(scan.unit, _name(scan.unit), scan.unit_evidence, longest)
    if scan.capture is not None and (seen := seen_length(scan.capture)) is not None:
        return _as_seen(seen, _diameter(corners), longest)
    return _likely(longest, usual_size(scan.path.stem if name is None else name))


def usual_size(name: str) -> tuple[str, float] | None:
    """The one word of a name whose things are alike everywhere, and their longest side [m].

    Args:
        name: Such as ``coffee_mug_2`` or ``RedScissors``.
    """
    words = {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)}
    known = [(word, size) for word, size in _usual_sizes().items() if word in words]
    return known[0] if len(known) == 1 else None


@cache
def _usual_sizes() -> dict[str, float]:
    return yaml.safe_load((Path(__file__).parent / "sizes.yaml").read_text())


def seen_length(folder: Path) -> float | None:
    """The longest distance across its one object that a picture of a capture shows [m]; None without such pictures."""
    from scaffoldlab.scan.captures.capture import read_capture

    try:
        capture = read_capture(folder)
        if len(capture.object_names) != 1:
            return None
        (name,) = capture.object_names
        masked = [frame for frame in capture.frames if name in frame.masks]
        lengths = []
        for frame in masked[:: max(1, len(masked) // 12)]:
            image = frame.image()
            rows, columns = np.nonzero(frame.mask(name) & (image.depth > 0))
            if len(rows) < 100:
                continue
            depth = image.depth[rows, columns]
            middle = np.median(depth)
            near = np.abs(depth - middle) < 3 * np.median(np.abs(depth - middle)) + 0.01  # not what is behind its edge
            pixels = np.stack((columns + 0.5, rows + 0.5, np.ones(len(rows))), -1)[near]
            points = pixels @ np.linalg.inv(image.camera.intrinsics).T * depth[near, None]
            lengths.append(_diameter(points))
    except ScaffoldError:  # what is wrong with a capture is for its own examination to say
        return None
    return max(lengths, default=None)


def _diameter(points: np.ndarray) -> float:
    """The longest distance between two of some points, shape (P, 3)."""
    from scipy.spatial import ConvexHull
    from scipy.spatial.distance import pdist

    # Joggled, since points in a plane have no hull; thinned, since a fine sphere has only corners.
    corners = points[ConvexHull(points, qhull_options="QJ").vertices]
    return float(pdist(corners[:: len(corners) // 2000 + 1]).max())


def _as_seen(seen: float, diameter: float, longest: float) -> Units:
    """The unit with which a mesh is as long as the pictures beside it show."""
    share = {name: seen / (diameter * METRES[name]) for name in PRIOR}
    fitting = [name for name, value in share.items() if SEEN[0] < value < SEEN[1]]
    if fitting:
        name = min(fitting, key=lambda name: abs(math.log(share[name])))
        return _units(METRES[name], name, f"the capture beside it shows an object {_length(seen)} across", longest)
    text = f"the capture beside it shows an object {_length(seen)} across, and no unit gives the mesh that size"
    about = longest * seen / diameter
    fix = f"Give its longest side with --size; it is about {_length(about)}"
    return Units(1.0, "unknown", text, Finding(check="units", severity="error", seen=text, fix=fix))


def _units(scale: float, name: str, evidence: str, longest: float) -> Units:
    real = longest * scale
    text = f"{name} (1 = {scale:g} m), since {evidence}; the longest side is {_length(real)}"
    if 0.005 <= real <= 3.0:
        return Units(scale, name, evidence, Finding(check="units", severity="ok", seen=text))
    fix = "Give the right unit with --units, or the real longest side with --size"
    return Units(scale, name, evidence, Finding(check="units", severity="warning", seen=text, fix=fix))


def _likely(longest: float, usual: tuple[str, float] | None) -> Units:
    """Weighs the size that each unit would give against the sizes that objects, or those of its name, have."""
    if min(abs(longest - 1), abs(longest - 2)) < 1e-3 * longest:
        text = f"the longest side is {longest:.4g}, as of a mesh that was normalised; no unit fits such a file"
        about = "" if usual is None else f" (a {usual[0]} is about {usual[1]:g} m long)"
        fix = f"Give the real longest side with --size{about}, or --units m if it really is that long"
        return Units(
            1.0, "unknown", "the mesh is normalised", Finding(check="units", severity="error", seen=text, fix=fix)
        )
    sizes, typical, spread, whose = {name: longest * METRES[name] for name in PRIOR}, TYPICAL_SIZE, SPREAD, ""
    if usual is not None and any(abs(math.log(s / usual[1])) < NAMED_SIGMAS * NAMED_SPREAD for s in sizes.values()):
        typical, spread, whose = usual[1], NAMED_SPREAD, f" of a {usual[0]}"
    log_odds = {
        name: math.log(PRIOR[name]) - 0.5 * (math.log(size / typical) / spread) ** 2 for name, size in sizes.items()
    }
    first, second = sorted(log_odds, key=log_odds.__getitem__, reverse=True)[:2]
    evidence = f"{_length(sizes[first])} is the likeliest size{whose} for a longest side of {longest:.4g}"
    odds = math.exp(min(50.0, log_odds[first] - log_odds[second]))
    units = _units(METRES[first], first, evidence, longest)
    if odds >= SURE or units.finding.severity != "ok":
        return units
    seen = f"{units.finding.seen}; {_length(sizes[second])} ({second}) is only {odds:.1f} times less likely"
    others = [f"--units {name} ({_length(sizes[name])})" for name in dict.fromkeys((second, "inch", "cm"))]
    fix = f"If it is wrong, say {', '.join(o for o in others if first not in o.split())}, or --size"
    return Units(units.scale, first, evidence, Finding(check="units", severity="warning", seen=seen, fix=fix))


def _name(scale: float) -> str:
    return next((name for name, metres in METRES.items() if math.isclose(metres, scale, rel_tol=1e-6)), "of the file")


def _length(metres: float) -> str:
    return f"{100 * metres:.3g} cm" if metres < 1 else f"{metres:.3g} m"
