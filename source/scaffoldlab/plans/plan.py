"""A plan: waypoints of the keypoints and of the wrist, for one exact initial state."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from scaffoldlab.errors import ScaffoldError
from scaffoldlab.geometry import quat_xyzw_from_rpy, rpy_from_quat_xyzw
from scaffoldlab.keypoints.keypoint import Keypoint

_NOISE_STREAM = 0x6E6F697365  # "noise": keeps these draws apart from others that are seeded with (seed, index)


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """Keypoint and wrist waypoints, evenly spaced in time over the episode (Scaffolds, eq. 1).

    Positions are in the env frame [m]: x forward, y left, z up.

    Attributes:
        task: Task that it was made for.
        keypoints: The K keypoints, as located on their bodies.
        keypoints_e: Keypoint waypoints, shape (n, K, 3), n >= 2.
        wrist_e: Wrist waypoints, shape (n, 6): hand point [m], then roll, pitch, yaw [rad] without jumps of 2 pi.
        initial_state: What the reset must restore: ``"hand"`` the wrist, shape (6,), and per movable asset
            its root pose xyz + quat_xyzw, shape (7,), the joint positions of an articulation, shape (J,), or both of
            an articulation that nothing holds, shape (7 + J,).
        provenance: Planner, seed, index, noise, model, ... (JSON values).

    Raises:
        ScaffoldError: A shape is wrong, a number is not finite, or an angle jumps by more than pi.
    """

    task: str
    keypoints: tuple[Keypoint, ...]
    keypoints_e: np.ndarray
    wrist_e: np.ndarray
    initial_state: dict[str, np.ndarray]
    provenance: dict[str, Any]

    def __post_init__(self) -> None:
        where, count = f"plan of task {self.task!r}", len(self.wrist_e)
        if count < 2:
            raise ScaffoldError(f"{where}: got {count} waypoints; allowed: at least 2, the start and the end.")
        shapes = {"keypoints_e": (count, len(self.keypoints), 3), "wrist_e": (count, 6)}
        for name, shape in shapes.items():
            if np.shape(getattr(self, name)) != shape:
                raise ScaffoldError(f"{where}: {name} has shape {np.shape(getattr(self, name))}; allowed: {shape}.")
        numbers = {name: getattr(self, name) for name in shapes} | {
            f"initial_state[{name!r}]": value for name, value in self.initial_state.items()
        }
        for name, value in numbers.items():
            if not np.all(np.isfinite(value)):
                raise ScaffoldError(f"{where}: {name} holds numbers that are not finite; allowed: finite numbers only.")
        jump = float(np.abs(np.diff(self.wrist_e[:, 3:], axis=0)).max())
        if jump > np.pi:
            raise ScaffoldError(
                f"{where}: wrist_e turns by {jump:.2f} rad between two waypoints; allowed: at most pi, because angles "
                "are interpolated as numbers. Pass roll, pitch and yaw through np.unwrap(angles, axis=0)."
            )

    def tracks(self, steps: int) -> tuple[np.ndarray, np.ndarray]:
        """Keypoint and wrist targets of every control step, shapes (steps, K, 3) and (steps, 6).

        Positions are interpolated linearly between waypoints (Scaffolds, section 3.2), rotations spherically; the
        first and the last target are the first and the last waypoint.
        """
        wrist_e = interpolate(self.wrist_e, steps)
        if np.ptp(self.wrist_e[:, 3:], axis=0).any():
            wrist_e[:, 3:] = interpolate_rpy(self.wrist_e[:, 3:], steps)
        return interpolate(self.keypoints_e, steps), wrist_e


def interpolate(waypoints: np.ndarray, steps: int) -> np.ndarray:
    """Linear interpolation of evenly spaced waypoints, shape (n, ...) -> (steps, ...), n and steps >= 2.

    The first and the last row are exactly the first and the last waypoint.
    """
    waypoints = np.asarray(waypoints)
    if len(waypoints) < 2 or steps < 2:
        raise ScaffoldError(
            f"interpolate: got {len(waypoints)} waypoints and {steps} steps; allowed: at least 2 of each, "
            "because both ends of the plan are kept."
        )
    position = np.linspace(0, len(waypoints) - 1, steps)
    lower = np.minimum(position.astype(int), len(waypoints) - 2)
    fraction = (position - lower).reshape(-1, *[1] * (waypoints.ndim - 1))
    return waypoints[lower] * (1 - fraction) + waypoints[lower + 1] * fraction


def interpolate_rpy(waypoints: np.ndarray, steps: int) -> np.ndarray:
    """Spherical linear interpolation of roll, pitch, yaw [rad], shape (n, 3) -> (steps, 3), n and steps >= 2.

    Of the angles of a rotation those are taken that are nearest to the linear interpolation, which has no jumps.
    """
    from scipy.spatial.transform import Rotation, Slerp

    near, position = interpolate(waypoints, steps), np.linspace(0, len(waypoints) - 1, steps)
    rotations = Slerp(np.arange(len(waypoints)), Rotation.from_quat(quat_xyzw_from_rpy(waypoints)))(position)
    at_waypoint = position == position.round()
    return np.where(at_waypoint[:, None], near, rpy_from_quat_xyzw(rotations.as_quat(), near))


def with_waypoint_noise(plan: Plan, *, sigma: float, seed: int) -> Plan:
    """The plan with N(0, sigma^2) [m] added to every position but the first waypoint's (Scaffolds, appendix E.3).

    The same seed and plan give the same noise; the plan's ``provenance["index"]`` makes it differ over a library.
    """
    if sigma < 0 or seed < 0 or "index" not in plan.provenance:
        raise ScaffoldError(
            f"waypoint noise of a plan of task {plan.task!r}: got sigma {sigma} m, seed {seed} and provenance with "
            f"{', '.join(sorted(plan.provenance)) or 'nothing'}; allowed: sigma >= 0, seed >= 0, provenance with "
            "'index'."
        )
    rng = np.random.default_rng((seed, plan.provenance["index"], _NOISE_STREAM))
    keypoints_e, wrist_e = np.array(plan.keypoints_e, float), np.array(plan.wrist_e, float)
    keypoints_e[1:] += rng.normal(0, sigma, keypoints_e[1:].shape)
    wrist_e[1:, :3] += rng.normal(0, sigma, wrist_e[1:, :3].shape)
    provenance = plan.provenance | {"waypoint_noise_m": sigma, "waypoint_noise_seed": seed}
    return replace(plan, keypoints_e=keypoints_e, wrist_e=wrist_e, provenance=provenance)
