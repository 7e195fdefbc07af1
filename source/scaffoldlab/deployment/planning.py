"""A plan from what camera, tracker and robot say now: the first steps of Scaffolds, appendix C.1."""

import time
from collections.abc import Callable, Mapping

import numpy as np

from scaffoldlab.camera import RgbdImage
from scaffoldlab.deployment.devices import PoseTracker, RgbdCamera, Robot
from scaffoldlab.deployment.loop import DeploymentLimits, RobotHand, tracked_bodies
from scaffoldlab.deployment.tracker import PoseGate
from scaffoldlab.errors import ScaffoldError
from scaffoldlab.planners.base import Planner
from scaffoldlab.planners.making import make_plan, make_request
from scaffoldlab.plans.plan import Plan
from scaffoldlab.specs.models import Composition

_AXES = 0.01 * np.array([(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)])
"""A frame as points, its origin and a centimetre along each axis: what a `PoseGate` tells where they are."""


def plan_from_capture(
    composition: Composition,
    planner: Planner,
    *,
    camera: RgbdCamera,
    tracker: PoseTracker,
    robot: Robot,
    steps: int,
    waypoint_count: int | None = None,
    patience: float = 30.0,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[Plan, RgbdImage]:
    """A plan from the newest picture, and from where the hand and the tracked bodies are; and the picture.

    Args:
        composition: The task.
        planner: Who plans.
        camera: Takes the picture.
        tracker: Poses of every body that carries a keypoint of the task and can move.
        robot: The robot, with an open hand.
        steps: Control steps that the plan is for.
        waypoint_count: n; None takes the oracle's.
        patience: Longest time to wait for joints and poses [s].
        clock: Time [s].
        sleep: Waits [s].

    Raises:
        ScaffoldError: There is no picture, no joint state or pose in time, or no plan, with the reason.
    """
    image = camera.capture()
    state = present_state(
        composition, tracker=tracker, robot=robot, pose_ec=image.camera.pose_ec, patience=patience,
        clock=clock, sleep=sleep,
    )  # fmt: skip
    request = make_request(
        composition, seed=0, index=0, waypoint_count=waypoint_count, image=image, state=state, control_steps=steps
    )
    plan = make_plan(composition, planner, request)
    tracked = tracked_bodies(composition)
    loose = set(tracked_bodies(composition, plan)) - set(tracked)
    for keypoint in (k for k in plan.keypoints if k.body in loose):
        raise ScaffoldError(
            f"deployment: the {planner.name} planner found keypoint {keypoint.name!r} on {keypoint.body!r}, which "
            f"can move and is not tracked; tracked: {', '.join(tracked)}. Plan again from another picture."
        )
    return plan, image


def present_state(
    composition: Composition,
    *,
    tracker: PoseTracker,
    robot: Robot,
    pose_ec: np.ndarray,
    patience: float = 30.0,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, np.ndarray]:
    """The state to plan from, in the form of ``Plan.initial_state``; arguments as of :func:`plan_from_capture`.

    What can move and carries no keypoint of the task is where the scene file has it.

    Args:
        pose_ec: Camera to env frame, shape (4, 4).

    Raises:
        ScaffoldError: Joint state or poses are missing, with their names, or wrong.
    """
    hand, limits, deadline = RobotHand(composition), DeploymentLimits(), clock() + patience
    gates = {body: PoseGate(body, _AXES, pose_ec) for body in tracked_bodies(composition)}
    while True:
        now, joints, poses = clock(), robot.state(), tracker.poll()
        for body, gate in gates.items():
            gate.update(poses.get(body), now)
        missing = [gate.trouble for gate in gates.values() if gate.trouble]
        if joints is None or now - joints.time > limits.joint_age:
            missing.append(f"no joint state for {limits.joint_age:g} s")
        elif not missing:
            break
        if now > deadline:
            raise ScaffoldError(
                f"deployment: nothing to plan from after {patience:g} s: {'; '.join(missing)}. A plan starts where "
                f"hand and objects are: the robot has to send its joints, and the tracker the poses of "
                f"{', '.join(gates)}. Start them, and look whether the tracker has found each of these."
            )
        sleep(1 / 60)
    hand.take(joints)
    return {"hand": hand.wrist[0].double().numpy()} | asset_states(
        composition, {body: _pose(gate) for body, gate in gates.items()}
    )


def asset_states(composition: Composition, poses_e: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """State of every asset that can move, as in ``Plan.initial_state``.

    Args:
        composition: The task.
        poses_e: Poses of bodies in the env frame, shape (4, 4); those not given are where the scene file has them,
            and joints above them at zero.
    """
    from scipy.spatial.transform import Rotation

    from scaffoldlab.usd.reader import joint_positions, root_body

    states = {}
    for asset in (a for a in composition.scene.assets if a.kind != "static"):
        usd, pose, parts = composition.usd(asset.usd), asset.pose(), []
        links = {b.partition("/")[2]: matrix for b, matrix in poses_e.items() if b.partition("/")[0] == asset.name}
        if (root := links.get(root_body(usd))) is not None:
            pose = np.concatenate([root[:3, 3], Rotation.from_matrix(root[:3, :3]).as_quat()])
        if composition.is_free(asset):
            parts.append(pose)
        if asset.kind == "articulation":
            base = np.eye(4)
            base[:3, :3], base[:3, 3] = Rotation.from_quat(pose[3:]).as_matrix(), pose[:3]
            found = joint_positions(usd, {name: np.linalg.inv(base) @ matrix for name, matrix in links.items()})
            parts.append(np.array([found.get(joint, 0.0) for joint in asset.joints]))
        if parts:
            states[asset.name] = np.concatenate(parts)
    return states


def _pose(gate: PoseGate) -> np.ndarray:
    """Pose of a body in the env frame, shape (4, 4), by where its gate has the points of `_AXES`."""
    assert gate.points_e is not None
    origin, *ends = gate.points_e
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = (np.stack(ends, -1) - origin[:, None]) / _AXES.max(), origin
    return pose
