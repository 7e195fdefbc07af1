"""Whether the success condition of a task can hold: what it names exists, and nothing in the scene rules it out."""

from collections.abc import Callable

import numpy as np

from scaffoldlab.errors import ScaffoldError
from scaffoldlab.geometry import pose_apply, quat_apply
from scaffoldlab.specs.models import (
    Composition,
    Condition,
    Displaced,
    JointBeyond,
    JointWithin,
    KeypointSpec,
    Leaf,
    Near,
    OnTop,
    Swings,
    Touching,
    Upright,
)

type Objection = tuple[str, str] | None
"""Why a condition can never hold, and what is allowed; None if it can."""

SAMPLES = 121
"""Positions over the travel of a joint: one for each degree of a door."""


def check_success(c: Composition, where: str) -> None:
    """Refuses a success condition, all of whose names exist, that the bodies it is about can never fulfil.

    What moves freely is bounded by the workspace, which plans must stay in. What hangs on one joint of an asset that
    is fixed to the world is where that joint takes it. Longer chains are taken for free.

    Raises:
        ScaffoldError: With what was got and what is allowed.
    """
    for name, leaf in c.task.success.leaves():
        for check in CHECKS[type(leaf)]:
            if objection := check(c, leaf):
                raise ScaffoldError(f"{where}.{name}: can never hold: {objection[0]}; allowed: {objection[1]}.")
    _check_together(c.task.success, where)


def _check_together(condition: Condition, where: str) -> None:
    """Refuses conditions on one joint that exclude each other, where ``all`` asks for both."""
    needed = _needed(condition)
    for beyond in (leaf for leaf in needed if isinstance(leaf, JointBeyond)):
        for within in (leaf for leaf in needed if isinstance(leaf, JointWithin)):
            if (beyond.asset, beyond.joint) == (within.asset, within.joint) and beyond.distance >= within.distance:
                raise ScaffoldError(
                    f"{where}.all: can never hold: {beyond.joint!r} of {beyond.asset!r} would have to be beyond "
                    f"{beyond.distance:g} and within {within.distance:g} of zero at once; allowed: a distance of "
                    "joint_beyond that is less than that of joint_within."
                )
    for child in condition.all or condition.any or ():
        _check_together(child, where)


def _needed(condition: Condition) -> list[Leaf]:
    """The plain conditions that all have to hold."""
    if condition.any is not None:
        return []
    return [n for child in condition.all for n in _needed(child)] if condition.all else [condition.leaf[1]]


# --- checks ---------------------------------------------------------------------------------------------------------


def _moves(c: Composition, leaf: Displaced | Swings | Upright) -> Objection:
    body = leaf.body if isinstance(leaf, Upright) else _keypoint(c, leaf.keypoint).body
    return (f"{body!r} cannot move", "a body that moves") if _is_still(c, body) else None


def _move_apart(c: Composition, leaf: Near | OnTop) -> Objection:
    names = (leaf.keypoint, leaf.to if isinstance(leaf, Near) else leaf.of)
    bodies = [_keypoint(c, name).body for name in names]
    together = len(set(bodies if isinstance(leaf, Near) else names)) == 1
    if together or all(_is_still(c, body) for body in bodies):
        return (
            f"{' and '.join(map(repr, names))} stay the same distance apart",
            "keypoints that move against each other",
        )
    return None


def _near(c: Composition, leaf: Near) -> Objection:
    for name, other in ((leaf.keypoint, leaf.to), (leaf.to, leaf.keypoint)):
        positions = _positions(c, name)
        if positions is None or len(positions) > 1:
            continue
        gap = np.linalg.norm((positions[0] - positions[0].clip(*c.scene.workspace))[: len(leaf.axes)])
        if gap >= leaf.distance:
            outside = f"{name!r} is {gap:.2f} m outside the scene's workspace, in which {other!r} stays"
            return f"got a distance of {leaf.distance:g} m, and {outside}", f"more than {gap:.2f} m"
    return None


def _on_top(c: Composition, leaf: OnTop) -> Objection:
    upper, lower = _keypoint(c, leaf.keypoint), _keypoint(c, leaf.of)
    (low_a, high_a), (low_b, high_b) = (_heights(c, name) for name in (leaf.keypoint, leaf.of))
    low, high, limit = low_a - high_b, high_a - low_b, "the workspace or their joints keep them"
    if upper.body == lower.body:
        apart = float(np.linalg.norm(np.subtract(upper.point, lower.point)))
        low, high, limit = max(low, -apart), min(high, apart), "one rigid body keeps them"
    if low - leaf.tolerance < leaf.height < high + leaf.tolerance:
        return None
    why = f"got a height of {leaf.height:g} m of {leaf.keypoint!r} above {leaf.of!r}, and {limit}"
    allowed = f"{low:.3f} to {high:.3f} m, give or take the tolerance of {leaf.tolerance:g} m"
    return f"{why} between {low:.3f} and {high:.3f} m", allowed


def _joint_travels(c: Composition, leaf: JointBeyond | JointWithin) -> Objection:
    from scaffoldlab.usd.reader import joint_limits

    low, high = joint_limits(c.usd(c.scene.asset(leaf.asset, str(c.source)).usd))[leaf.joint]
    nearest, furthest = max(low, -high, 0.0), max(-low, high)
    beyond = isinstance(leaf, JointBeyond)
    if leaf.distance < furthest if beyond else leaf.distance > nearest:
        return None
    why = f"got a distance of {leaf.distance:g}, and {leaf.joint!r} moves from {low:.4g} to {high:.4g}"
    return why, f"less than {furthest:.4g}" if beyond else f"more than {nearest:.4g}"


def _upright(c: Composition, leaf: Upright) -> Objection:
    poses = _poses(c, leaf.body)
    if poses is None:
        return None
    root = c.scene.asset(leaf.body.partition("/")[0], str(c.source)).pose()
    up = quat_apply(root[3:], quat_apply(poses[:, 3:], np.eye(3)["xyz".index(leaf.axis)]))[:, 2]
    nearest = float(np.degrees(np.arccos(np.clip(up, -1, 1))).min())
    if nearest < leaf.angle_deg - 1e-3:
        return None
    why = f"got an angle_deg of {leaf.angle_deg:g}, and its joint keeps axis {leaf.axis} of {leaf.body!r}"
    allowed = f"more than {nearest:.0f}" if nearest < 89 else "another axis, or a body that turns over"
    return f"{why} at least {nearest:.0f} deg from pointing up", allowed


def _displaced(c: Composition, leaf: Displaced) -> Objection:
    positions, limit = _positions(c, leaf.keypoint), "its joint"
    if positions is None:
        positions, limit = np.array(c.scene.workspace), "the scene's workspace"
    ground = positions[:, :2]
    furthest = np.linalg.norm(ground[:, None] - ground, axis=-1).max()
    if leaf.distance < furthest:
        return None
    why = f"got a distance of {leaf.distance:g} m, and {limit} lets {leaf.keypoint!r} move"
    return f"{why} {furthest:.2f} m over ground", f"less than {furthest:.2f} m"


def _swings(c: Composition, leaf: Swings) -> Objection:
    low, high = _heights(c, leaf.keypoint)
    if leaf.height <= high - low:
        return None
    limit = "the scene's workspace" if _positions(c, leaf.keypoint) is None else "its joint"
    why = f"got a height of {leaf.height:g} m, and {limit} lets {leaf.keypoint!r} go up by {high - low:.2f} m"
    return why, f"up to {high - low:.2f} m" if high - low > 0.005 else "a keypoint that goes up and down"


def _touching(c: Composition, leaf: Touching) -> Objection:
    if leaf.body == leaf.other:
        return f"got {leaf.body!r} twice", "two bodies"
    for body in (leaf.body, leaf.other):
        if c.scene.asset(body.partition("/")[0], str(c.source)).kind == "static":
            return f"{body!r} is static, and feels nothing", "two bodies that move"
    return None


CHECKS: dict[type, tuple[Callable[..., Objection], ...]] = {
    Near: (_move_apart, _near),
    OnTop: (_move_apart, _on_top),
    JointBeyond: (_joint_travels,),
    JointWithin: (_joint_travels,),
    Upright: (_moves, _upright),
    Displaced: (_moves, _displaced),
    Swings: (_moves, _swings),
    Touching: (_touching,),
}


# --- where bodies can be --------------------------------------------------------------------------------------------


def _keypoint(c: Composition, name: str) -> KeypointSpec:
    return next(k for k in c.task.keypoints if k.name == name)


def _is_still(c: Composition, body: str) -> bool:
    poses = _poses(c, body)
    return poses is not None and len(poses) == 1


def _poses(c: Composition, body: str) -> np.ndarray | None:
    """Poses of a body over the travel of its joint in the frame of its asset, xyz [m] + quat_xyzw, shape (P, 7).

    One if it cannot move; None if nothing holds it, several joints move it, or its joint goes on forever.
    """
    name, _, link = body.partition("/")
    asset = c.scene.asset(name, str(c.source))
    if c.is_free(asset):
        return None
    if asset.kind == "static":
        return np.array([[0, 0, 0, 0, 0, 0, 1.0]])
    from scaffoldlab.usd.reader import joints, link_poses

    path = c.usd(asset.usd)
    above, chain, at = {joint.child: joint for joint in joints(path)}, [], link
    while at:
        chain += [above[at]] if above[at].kind != "fixed" else []
        at = above[at].parent
    if not chain:
        return link_poses(path, {})[link][None]
    joint, (low, high) = chain[0], chain[0].limits
    if joint.kind == "revolute":
        low, high = max(low, -np.pi), min(high, np.pi)
    if len(chain) > 1 or not np.isfinite((low, high)).all():
        return None
    return np.array([link_poses(path, {joint.name: q})[link] for q in np.linspace(low, high, SAMPLES)])


def _positions(c: Composition, name: str) -> np.ndarray | None:
    """Where a keypoint can be in the env frame [m], shape (P, 3); None if that is anywhere in the workspace."""
    keypoint = _keypoint(c, name)
    poses = _poses(c, keypoint.body)
    if poses is None:
        return None
    asset = c.scene.asset(keypoint.body.partition("/")[0], str(c.source))
    return pose_apply(asset.pose(), pose_apply(poses, np.array(keypoint.point)))


def _heights(c: Composition, name: str) -> tuple[float, float]:
    """Lowest and highest that a keypoint can be in the env frame [m]."""
    positions = _positions(c, name)
    heights = np.array(c.scene.workspace if positions is None else positions)[:, 2]
    return float(heights.min()), float(heights.max())
