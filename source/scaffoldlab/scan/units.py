"""Decides how long a length of 1 in a mesh file is, and says on what evidence."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from scaffoldlab.errors import ScaffoldError
from scaffoldlab.scan.findings import Finding
from scaffoldlab.scan.reading import METRES, Scan

TYPICAL_SIZE, SPREAD = 0.15, 0.9
"""Longest side of what a hand moves: median [m], and standard deviation of its logarithm."""
PRIOR = {"m": 0.45, "mm": 0.4, "cm": 0.15}
"""How often a file without a unit turns out to be in each."""
SURE = 4.0
"""Odds of the likeliest unit against the next one above which nobody has to be asked."""


@dataclass(frozen=True)
class Units:
    """Metres that a length of 1 stands for, its name, and why."""

    scale: float
    name: str
    evidence: str
    finding: Finding


def decide_units(scan: Scan, *, given: str = "auto", size: float | None = None) -> Units:
    """The unit of a scan: what the user says, else what the file says, else what is likely for its size.

    Args:
        scan: The mesh.
        given: ``auto`` or a unit of :data:`METRES`.
        size: Longest side of the real object [m]; it settles every question.

    Raises:
        ScaffoldError: ``given`` is no unit, or the size is not positive.
    """
    longest = float(np.ptp(scan.mesh.vertices, axis=0).max())
    if size is not None:
        if not size > 0 or not longest > 0:
            raise ScaffoldError(f"--size {size:g}: allowed: a positive length [m] of a mesh that is no point.")
        return _units(size / longest, "of --size", f"the longest side is {size:g} m (--size)", longest)
    if given != "auto":
        if given not in METRES:
            raise ScaffoldError(f"--units {given}: allowed: auto, {', '.join(METRES)}.")
        return _units(METRES[given], given, "given with --units", longest)
    if scan.unit is not None:
        return _units(scan.unit, _name(scan.unit), scan.unit_evidence, longest)
    return _likely(longest)


def _units(scale: float, name: str, evidence: str, longest: float) -> Units:
    real = longest * scale
    text = f"{name} (1 = {scale:g} m), since {evidence}; the longest side is {_length(real)}"
    if 0.005 <= real <= 3.0:
        return Units(scale, name, evidence, Finding(check="units", severity="ok", seen=text))
    fix = "Give the right unit with --units, or the real longest side with --size"
    return Units(scale, name, evidence, Finding(check="units", severity="warning", seen=text, fix=fix))


def _likely(longest: float) -> Units:
    """Weighs the size that each unit would give against the sizes that objects have."""
    if longest > 0 and min(abs(longest - 1), abs(longest - 2)) < 1e-3 * longest:
        text = f"the longest side is {longest:.4g}, as of a mesh that was normalised; no unit fits such a file"
        fix = "Give the real longest side with --size, or --units m if it really is that long"
        return Units(
            1.0, "unknown", "the mesh is normalised", Finding(check="units", severity="error", seen=text, fix=fix)
        )
    log_odds = {
        name: math.log(weight) - 0.5 * (math.log(max(longest, 1e-12) * METRES[name] / TYPICAL_SIZE) / SPREAD) ** 2
        for name, weight in PRIOR.items()
    }
    first, second = sorted(log_odds, key=log_odds.__getitem__, reverse=True)[:2]
    evidence = f"{_length(longest * METRES[first])} is the likeliest size for a longest side of {longest:.4g}"
    odds = math.exp(min(50.0, log_odds[first] - log_odds[second]))
    units = _units(METRES[first], first, evidence, longest)
    if odds >= SURE or units.finding.severity != "ok":
        return units
    seen = f"{units.finding.seen}; {_length(longest * METRES[second])} ({second}) is only {odds:.1f} times less likely"
    fix = f"If it is wrong, say --units {second}, --units inch ({_length(longest * METRES['inch'])}), or --size"
    return Units(units.scale, first, evidence, Finding(check="units", severity="warning", seen=seen, fix=fix))


def _name(scale: float) -> str:
    return next((name for name, metres in METRES.items() if math.isclose(metres, scale, rel_tol=1e-6)), "of the file")


def _length(metres: float) -> str:
    return f"{100 * metres:.3g} cm" if metres < 1 else f"{metres:.3g} m"
