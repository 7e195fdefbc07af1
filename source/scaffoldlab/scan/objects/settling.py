"""Whether an object comes to rest as it should: read back through Isaac Lab, dropped from 5 mm, watched for 2 s."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from scaffoldlab.scan.drop import ENGINES, RECORD_HZ, Body, drop
from scaffoldlab.scan.findings import Finding
from scaffoldlab.scan.objects.colliders import Part

HEIGHT, SECONDS = 0.005, 2.0
GAP_BOUND, STILL_BOUND, STILL_DEG = 0.002, 0.001, 1.0
"""How far the lowest point may be below or above the floor at the end [m]; motion in the last half second."""


@dataclass(frozen=True)
class Settling:
    """How an object came to rest on one engine.

    Attributes:
        settled: It lies still, not in the floor.
        seconds: When it came to rest [s]; None if it did not.
        penetration_m: How deep its lowest point is below the floor at the end [m]; negative: above it.
        drift_m: How far it moved in the last half second [m].
        shift_m: How far it is from where it was dropped, along the floor [m].
        tilt_deg: How far it tipped over.
    """

    settled: bool
    seconds: float | None
    penetration_m: float
    drift_m: float
    shift_m: float
    tilt_deg: float

    def finding(self, physics: str) -> Finding:
        """The same in words."""
        check = f"rest on {physics}"
        still = f"still after {self.seconds:.2f} s" if self.seconds is not None else "not still after 2 s"
        seen = (
            f"{still}, {1000 * self.penetration_m:.1f} mm in the floor, moved by {1000 * self.shift_m:.1f} mm, "
            f"tilted by {self.tilt_deg:.1f} deg"
        )
        if not self.settled:
            fix = "Look at the colliders in the picture; try --collider-threshold 0.02, or another --up"
            return Finding(check=check, severity="warning", seen=seen, fix=fix)
        if self.tilt_deg > 10:
            fix = "It does not stand the way it was scanned; say which axis is up with --up"
            return Finding(check=check, severity="warning", seen=seen, fix=fix)
        return Finding(check=check, severity="ok", seen=seen)


def settle_object(usd: Path, parts: list[Part], engines: tuple[str, ...] = ENGINES) -> dict[str, Settling]:
    """Drops an object on each engine, in parallel.

    Args:
        usd: Its USD file.
        parts: Its colliders in the body frame [m].
        engines: Names of physics engines.

    Raises:
        ScaffoldError: An engine failed.
    """
    corners = np.concatenate([part.mesh.vertices for part in parts])
    start = Body("it", str(usd.resolve()), (0.0, 0.0, HEIGHT - float(corners[:, 2].min()), 0.0, 0.0, 0.0, 1.0))
    with ThreadPoolExecutor(len(engines)) as pool:
        poses = pool.map(lambda engine: drop([start], physics=engine, seconds=SECONDS)[:, 0], engines)
        return {engine: judge(track, corners) for engine, track in zip(engines, poses, strict=True)}


def judge(track: np.ndarray, corners: np.ndarray) -> Settling:
    """What the poses of a drop say.

    Args:
        track: xyz [m] + quat_xyzw at 30 Hz, shape (T, 7).
        corners: Points of the colliders in the body frame [m], shape (P, 3).
    """
    turns = Rotation.from_quat(track[:, 3:])
    off = np.linalg.norm(track[:, :3] - track[-1, :3], axis=1)
    turned = np.degrees((turns * turns[-1].inv()).magnitude())
    moving = np.flatnonzero((off > STILL_BOUND) | (turned > STILL_DEG))
    rest = int(moving[-1]) + 1 if len(moving) else 0
    quarter = len(track) - RECORD_HZ // 2
    lowest = float((turns[-1].apply(corners) + track[-1, :3])[:, 2].min())
    still = bool(rest <= quarter and np.isfinite(track).all())
    axis = turns[-1].apply([0, 0, 1]) @ turns[0].apply([0, 0, 1])
    return Settling(
        settled=still and abs(lowest) <= GAP_BOUND,
        seconds=rest / RECORD_HZ if still else None,
        penetration_m=-lowest,
        drift_m=float(off[quarter:].max()),
        shift_m=float(np.linalg.norm(track[-1, :2] - track[0, :2])),
        tilt_deg=float(np.degrees(np.arccos(np.clip(axis, -1, 1)))),
    )


def as_record(settling: Settling) -> dict[str, Any]:
    """JSON values of a settling."""
    return {k: round(v, 5) if isinstance(v, float) else v for k, v in asdict(settling).items()}
