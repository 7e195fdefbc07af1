"""Checks a planner's waypoints, and says what is wrong in words that a person and a model can act on."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from scaffoldlab.errors import ScaffoldError
from scaffoldlab.geometry import matrix_from_rpy
from scaffoldlab.planners.base import PlanRequest, Waypoints
from scaffoldlab.plans.plan import interpolate
from scaffoldlab.plans.reach import ArmReach
from scaffoldlab.specs.bodies import SolidBox

AXIS_FLIPS = {
    "mirrored in x": np.diag((-1, 1, 1)),
    "mirrored in y": np.diag((1, -1, 1)),
    "mirrored in x and y": np.diag((-1, -1, 1)),
    "with x and y swapped": np.eye(3)[[1, 0, 2]],
    "with x and z swapped": np.eye(3)[[2, 1, 0]],
    "with y and z swapped": np.eye(3)[[0, 2, 1]],
}
"""The mistakes with world axes that models make (Scaffolds, section 3.2), as maps of displacements."""


@dataclass(frozen=True, kw_only=True)
class PlanLimits:
    """What a plan may do.

    Attributes:
        duration_s: Time from the first to the last waypoint [s].
        speed_max: Speed of the hand and of every keypoint [m/s].
        start_tolerance: Distance of the first waypoint from where things are [m]; prompts round to 1 cm.
        turn_max: Speed at which the hand turns [rad/s].
        start_turn: Angle between the first waypoint and how the hand is held [rad]; prompts round to degrees.
        stretch_max: Change of the distance between two keypoints of one rigid body [m].
        workspace_e: Lower and upper corner of the box for the hand and for the keypoints that move, env frame [m].
        height_min: Height of the support in the env frame [m]; None: only the workspace bounds the height.
        near: The hand comes this close to what it moves, and what it moves to its target [m]; for axis flips.
        moving: A keypoint that gets this far from its start is one that moves [m].
    """

    duration_s: float = 5.0
    speed_max: float = 1.5
    start_tolerance: float = 0.02
    turn_max: float = 3.0
    start_turn: float = 0.1
    stretch_max: float = 0.03
    workspace_e: tuple[tuple[float, float, float], tuple[float, float, float]] = ((-1.0, -1.0, 0.0), (1.0, 1.0, 2.0))
    height_min: float | None = None
    near: float = 0.10
    moving: float = 0.05

    def __post_init__(self) -> None:
        for name in sorted(set(vars(self)) - {"workspace_e", "height_min"}):
            if not getattr(self, name) > 0:
                raise ScaffoldError(f"plan limits: {name} is {getattr(self, name)}; allowed: above 0.")
        if np.shape(self.workspace_e) != (2, 3) or not np.all(np.less(*self.workspace_e)):
            raise ScaffoldError(f"plan limits: workspace_e is {self.workspace_e}; allowed: lower corner, upper corner.")


def validate_waypoints(
    request: PlanRequest, waypoints: Waypoints, limits: PlanLimits, *, origin_e: np.ndarray | None = None
) -> list[str]:
    """Everything that is wrong with a planner's answer; an empty list when it may be used.

    Each reason is one sentence with what, where (waypoint and keypoint), what was got and what is allowed, and names
    only the worst waypoint. Wrong shapes and numbers that are not finite hide the other checks.

    Waypoint 0 is compared with where the planner itself saw the keypoints, because this text goes back to a model that
    must not learn the true positions; whether it saw the right ones is for the evaluation to say.

    Axis flips are found by two rules, each on offsets between two points that start and stay further apart than
    ``near``, while the same motion with two axes swapped or one mirrored would bring them together: (1) from every
    keypoint that moves to the hand, at any waypoint; (2) from a keypoint at rest to one of another asset that moves,
    over ground, at the end, when it ends further away than it began.

    Args:
        request: What was asked for.
        waypoints: What the planner answered.
        limits: What is allowed.
        origin_e: Point that positions in the reasons are relative to, env frame [m], shape (3,): what the prompt used.
    """
    reasons = list(_shape_reasons(request, waypoints)) or list(_finite_reasons(request, waypoints))
    if reasons:
        return reasons
    tracks = _Tracks(request, waypoints, limits, np.zeros(3) if origin_e is None else np.asarray(origin_e, float))
    checks = (_start, _speed, _turn, _stretch, _height, _reach, _hand_flip, _target_flip)
    return [reason for check in checks for reason in check(tracks)]


def collision_reasons(
    hand_e: np.ndarray, boxes: Iterable[SolidBox], *, origin_e: np.ndarray | None = None, depth: float = 0.01
) -> list[str]:
    """Where the hand point's straight way between waypoints goes through what cannot move, one sentence a body.

    Only the hand point is looked at, not the fingers or what they hold, and solids are boxes: a curved one is its
    bounding box. A solid that the hand starts in is left out.

    Args:
        hand_e: Waypoints of the hand in the env frame [m], shape (n, 3).
        boxes: Solids.
        origin_e: Point that positions in the reasons are relative to [m], shape (3,).
        depth: How far into a solid the hand point may go [m].
    """
    if len(hand_e) < 2 or not np.isfinite(hand_e).all():
        return []  # validation has its own words for that
    steps, origin_e = 20, np.zeros(3) if origin_e is None else origin_e
    way_e = interpolate(hand_e, steps * (len(hand_e) - 1) + 1)
    worst: dict[str, tuple[float, int]] = {}
    for box in boxes:
        inside = (box.half - np.abs((way_e - box.center_e) @ box.rotation_eb)).min(-1)  # depth below the nearest face
        t = int(inside.argmax())
        if inside[0] <= 0 and inside[t] > max(depth, worst.get(box.body, (0.0, 0))[0]):
            worst[box.body] = float(inside[t]), t
    reasons = []
    for body, (inside, t) in worst.items():
        x, y, z = way_e[t] - origin_e
        first = min(t // steps, len(hand_e) - 2)
        reasons.append(
            f"waypoints {first} to {first + 1}, the hand: at ({x:.2f}, {y:.2f}, {z:.2f}) it is {inside:.2f} m inside "
            f"{body!r}, which is solid; allowed: {depth:.2f} m. Move around it or above it."
        )
    return reasons


def reach_reasons(
    request: PlanRequest,
    waypoints: Waypoints,
    arm: ArmReach,
    *,
    origin_e: np.ndarray | None = None,
    distance: float = 0.02,
    angle: float = 0.1,
) -> list[str]:
    """The first waypoint that the arm cannot bring the hand to, as one sentence; an empty list when there is none.

    The arm is followed from waypoint to waypoint. Waypoint 0 is where the hand is, and is not judged.

    Args:
        request: What was asked for.
        waypoints: What the planner answered; without orientations the hand stays as it is held at the start.
        arm: The arm.
        origin_e: Point that positions in the reasons are relative to, env frame [m], shape (3,).
        distance: How far from a waypoint the hand may stay [m].
        angle: How far the hand may be turned from it [rad].
    """
    hand_e, rpy, origin_e = waypoints.hand_e, waypoints.wrist_rpy, np.zeros(3) if origin_e is None else origin_e
    shape = (request.waypoint_count, 3)
    if np.shape(hand_e) != shape or (rpy is not None and np.shape(rpy) != shape):
        return []  # validation has its own words for that
    rpy = np.broadcast_to(request.hand_rpy, shape) if rpy is None else rpy
    if not np.isfinite((hand_e, rpy)).all():
        return []  # and for that
    wrist_e = zip(hand_e, matrix_from_rpy(rpy), strict=True)
    for t, (point_e, off, turned) in enumerate(arm.follow(wrist_e, distance=distance, angle=angle)):
        if t and (off > distance or turned > angle):
            asked, got, base = (
                "({:.2f}, {:.2f}, {:.2f})".format(*(p - origin_e)) for p in (hand_e[t], point_e, arm.base_e)
            )
            return [
                f"waypoint {t}, the hand: {asked} is out of reach of the arm, whose base is at {base}: the hand gets "
                f"to {got}, {off:.2f} m off and turned by {np.degrees(turned):.0f} deg; "
                f"allowed: {distance:.2f} m and {np.degrees(angle):.0f} deg."
            ]
    return []


class _Tracks:
    """The answer as one array of points: the K keypoints, then the hand."""

    def __init__(self, request: PlanRequest, waypoints: Waypoints, limits: PlanLimits, origin_e: np.ndarray) -> None:
        self.limits, self.origin_e = limits, origin_e
        self.names = [*map(repr, request.keypoint_names), "the hand"]
        self.bodies = [k.body for k in request.keypoints]
        self.assets = [body.partition("/")[0] for body in self.bodies]
        self.points_e = np.concatenate((waypoints.keypoints_e, waypoints.hand_e[:, None]), 1).astype(float)
        self.start_e = np.concatenate((waypoints.located_e, np.asarray(request.hand_e)[None])).astype(float)
        self.rotations = None if waypoints.wrist_rpy is None else matrix_from_rpy(waypoints.wrist_rpy)
        self.start_rotation = matrix_from_rpy(request.hand_rpy)
        travel = np.linalg.norm(self.points_e - self.points_e[0], axis=-1).max(0)
        self.hand = len(self.names) - 1
        self.moving = [k for k in range(self.hand) if travel[k] > limits.moving]
        self.resting = [k for k in range(self.hand) if travel[k] <= limits.moving]

    def at(self, point_e: np.ndarray) -> str:
        """A position as the reader knows it."""
        x, y, z = point_e - self.origin_e
        return f"({x:.2f}, {y:.2f}, {z:.2f})"


def _shape_reasons(request: PlanRequest, waypoints: Waypoints) -> Iterator[str]:
    count, keypoints = request.waypoint_count, len(request.keypoint_names)
    names = ", ".join(map(repr, request.keypoint_names))
    for what, array, shape in (
        (f"keypoint waypoints ({names})", waypoints.keypoints_e, (count, keypoints, 3)),
        ("hand waypoints", waypoints.hand_e, (count, 3)),
        ("located keypoints", waypoints.located_e, (keypoints, 3)),
        *((("hand orientations", w, (count, 3)),) if (w := waypoints.wrist_rpy) is not None else ()),
    ):
        got = np.shape(array)
        if len(got) == len(shape) > 1 and got[1:] == shape[1:] and got[0] != shape[0]:
            yield f"{what}: got {got[0]}; allowed: exactly {shape[0]}."
        elif got != shape:
            yield f"{what}: got an array of shape {got}; allowed: {shape}, the last axis being x, y, z."


def _finite_reasons(request: PlanRequest, waypoints: Waypoints) -> Iterator[str]:
    hand = waypoints.hand_e[:, None]
    arrays = [(waypoints.keypoints_e, request.keypoint_names), (hand, ("hand",)), (waypoints.located_e[None], ())]
    if waypoints.wrist_rpy is not None and not np.isfinite(waypoints.wrist_rpy).all():
        yield "the hand: its orientation has numbers that are not finite; allowed: finite numbers of degrees."
    for array, names in arrays:
        for t, k, axis in np.argwhere(~np.isfinite(array))[:1]:
            where = f"waypoint {t}, {names[k]!r}" if names else f"located keypoint {request.keypoint_names[k]!r}"
            yield f"{where}: {'xyz'[axis]} is {array[t, k, axis]}; allowed: finite numbers of metres."


def _start(tracks: _Tracks) -> Iterator[str]:
    allowed = tracks.limits.start_tolerance
    offsets = np.linalg.norm(tracks.points_e[0] - tracks.start_e, axis=-1)
    for k in np.flatnonzero(offsets > allowed):
        yield (
            f"waypoint 0, {tracks.names[k]}: starts at {tracks.at(tracks.points_e[0, k])}, {offsets[k]:.2f} m from its "
            f"initial position {tracks.at(tracks.start_e[k])}; allowed: {allowed:.2f} m."
        )


def _speed(tracks: _Tracks) -> Iterator[str]:
    allowed, interval = tracks.limits.speed_max, tracks.limits.duration_s / (len(tracks.points_e) - 1)
    steps = np.linalg.norm(np.diff(tracks.points_e, axis=0), axis=-1)
    for k in np.flatnonzero(steps.max(0) / interval > allowed):
        t = int(steps[:, k].argmax())
        yield (
            f"waypoints {t} to {t + 1}, {tracks.names[k]}: moves {steps[t, k]:.2f} m in {interval:.2f} s, "
            f"{steps[t, k] / interval:.2f} m/s; allowed: {allowed:.2f} m/s, {allowed * interval:.2f} m per waypoint."
        )


def _turn(tracks: _Tracks) -> Iterator[str]:
    if tracks.rotations is None:
        return
    limits, interval = tracks.limits, tracks.limits.duration_s / (len(tracks.points_e) - 1)
    turns = _angles(tracks.rotations[:-1], tracks.rotations[1:])
    start = float(_angles(tracks.rotations[:1], tracks.start_rotation[None])[0])
    if start > limits.start_turn:
        yield (
            f"waypoint 0, the hand: it is turned by {np.degrees(start):.0f} deg from its initial orientation; allowed: "
            f"{np.degrees(limits.start_turn):.0f} deg."
        )
    if turns.max() > limits.turn_max * interval:
        t = int(turns.argmax())
        yield (
            f"waypoints {t} to {t + 1}, the hand: turns by {np.degrees(turns[t]):.0f} deg in {interval:.2f} s; "
            f"allowed: {np.degrees(limits.turn_max * interval):.0f} deg per waypoint."
        )


def _angles(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Angles between rotation matrices [rad], shapes (N, 3, 3) -> (N,)."""
    trace = np.einsum("nij,nij->n", first, second)
    return np.arccos(np.clip((trace - 1) / 2, -1, 1))


def _stretch(tracks: _Tracks) -> Iterator[str]:
    for i, j in combinations(range(tracks.hand), 2):
        if tracks.bodies[i] != tracks.bodies[j]:
            continue
        apart = np.linalg.norm(tracks.points_e[:, i] - tracks.points_e[:, j], axis=-1)
        t = int(np.abs(apart - apart[0]).argmax())
        if abs(apart[t] - apart[0]) > tracks.limits.stretch_max:
            yield (
                f"waypoint {t}, {tracks.names[i]} and {tracks.names[j]}: {apart[t]:.2f} m apart, but {apart[0]:.2f} m "
                "at waypoint 0, and both are on one rigid object; "
                f"allowed: a change of {tracks.limits.stretch_max:.2f} m."
            )


def _height(tracks: _Tracks) -> Iterator[str]:
    if tracks.limits.height_min is None:
        return
    floor = np.minimum(tracks.limits.height_min, tracks.start_e[:, 2]) - tracks.limits.start_tolerance
    for k in np.flatnonzero(tracks.points_e[..., 2].min(0) < floor):
        t = int(tracks.points_e[:, k, 2].argmin())
        yield (
            f"waypoint {t}, {tracks.names[k]}: z is {tracks.points_e[t, k, 2] - tracks.origin_e[2]:.2f} m, below what "
            f"things stand on; allowed: {floor[k] - tracks.origin_e[2]:.2f} m or more. z points up."
        )


def _reach(tracks: _Tracks) -> Iterator[str]:
    lower, upper = np.asarray(tracks.limits.workspace_e, float)
    for k in (*tracks.moving, tracks.hand):
        beyond = np.maximum(lower - tracks.points_e[:, k], tracks.points_e[:, k] - upper)
        t, axis = np.unravel_index(beyond.argmax(), beyond.shape)
        if beyond[t, axis] > 0:
            low, high = lower[axis] - tracks.origin_e[axis], upper[axis] - tracks.origin_e[axis]
            yield (
                f"waypoint {t}, {tracks.names[k]}: {tracks.at(tracks.points_e[t, k])} is out of reach; "
                f"allowed: {'xyz'[axis]} from {low:.2f} to {high:.2f} m."
            )


def _hand_flip(tracks: _Tracks) -> Iterator[str]:
    offsets = {k: tracks.points_e[:, tracks.hand] - tracks.points_e[:, k] for k in tracks.moving}
    flip = _nearest_flip(offsets, tracks.limits.near)
    if flip is not None:
        k, how, nearest, flipped = flip
        yield (
            f"all waypoints, the hand: comes no nearer than {nearest:.2f} m to {tracks.names[k]}, which moves; "
            f"allowed: {tracks.limits.near:.2f} m. The same motion {how} would come within {flipped:.2f} m: the axes "
            "look mixed up. x is forward, y is left, z is up."
        )


def _target_flip(tracks: _Tracks) -> Iterator[str]:
    for target in tracks.resting:
        others = [k for k in tracks.moving if tracks.assets[k] != tracks.assets[target]]  # a drawer leaves its cabinet
        offsets = {k: (tracks.points_e[:, k] - tracks.points_e[:, target])[[0, -1]] * (1, 1, 0) for k in others}
        away = {k: o for k, o in offsets.items() if np.linalg.norm(o[1]) > np.linalg.norm(o[0]) + tracks.limits.moving}
        flip = _nearest_flip(away, tracks.limits.near)
        if flip is not None:
            k, how, _, flipped = flip
            began, ended = np.linalg.norm(away[k], axis=-1)
            yield (
                f"waypoint {len(tracks.points_e) - 1}, {tracks.names[k]}: ends {ended:.2f} m from "
                f"{tracks.names[target]} over ground, further than the {began:.2f} m at waypoint 0. The same motion "
                f"{how} would end within {flipped:.2f} m: the axes look mixed up. x is forward, y is left, z is up."
            )
            return


def _nearest_flip(offsets: dict[int, np.ndarray], near: float) -> tuple[int, str, float, float] | None:
    """The axis flip that would bring two points together that never meet.

    Args:
        offsets: By number of a keypoint, the offset from one point to the other, shape (T, 3) [m].
        near: Distance that counts as together [m].

    Returns:
        Keypoint, name of the flip, nearest distance as planned and as flipped; None when any offset comes within
        ``near`` as planned, or none does flipped.
    """
    nearest = {k: float(np.linalg.norm(offset, axis=-1).min()) for k, offset in offsets.items()}
    if not nearest or min(nearest.values()) <= near:
        return None
    flipped = {
        (k, how): float(np.linalg.norm(offset[0] + (offset - offset[0]) @ flip.T, axis=-1).min())
        for k, offset in offsets.items()
        for how, flip in AXIS_FLIPS.items()
    }
    k, how = min(flipped, key=flipped.__getitem__)
    return (k, how, nearest[k], flipped[k, how]) if flipped[k, how] <= near else None
