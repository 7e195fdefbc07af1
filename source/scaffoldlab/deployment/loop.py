"""The loop at 60 Hz: joint state and tracked keypoints in, the policy's joint targets out (Scaffolds, appendix C.1)."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from scaffoldlab.deployment.devices import JointState, PoseTracker, Robot
from scaffoldlab.deployment.policy import PolicyMetadata
from scaffoldlab.deployment.tracker import PoseGate
from scaffoldlab.errors import ScaffoldError, unknown_name
from scaffoldlab.geometry import pose_apply
from scaffoldlab.plans.plan import Plan
from scaffoldlab.plans.targets import PlanTargets
from scaffoldlab.robots.hand import Hand, ResidualAction
from scaffoldlab.robots.kinematics import KinematicTree
from scaffoldlab.specs.models import Composition
from scaffoldlab.terms import observations

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class DeploymentLimits:
    """When the loop does not rely on what it gets.

    Attributes:
        joint_age: Longest time without a joint state [s].
        pose_age: Longest time without a pose of a tracked body [s].
        jump: Largest step of a keypoint between two poses [m].
        settle: Poses that have to agree with a jump before it is believed.
        start_distance: Largest distance of hand and keypoints from the plan's start [m].
        start_angle: Largest difference of roll, pitch, yaw from the plan's start [rad].
        patience: Longest time on hold before giving up [s].
    """

    joint_age: float = 0.1
    pose_age: float = 0.25
    jump: float = 0.05
    settle: int = 10
    start_distance: float = 0.05
    start_angle: float = 0.3
    patience: float = 30.0


@dataclass(frozen=True)
class Hold:
    """A time in which the robot held its position.

    Attributes:
        step: Control step of the plan at which it did.
        reason: Why.
        seconds: How long [s].
    """

    step: int
    reason: str
    seconds: float


@dataclass
class DeploymentReport:
    """What happened.

    Attributes:
        steps: Control steps of the plan that were carried out.
        seconds: Time from the first to the last of them, holds included [s].
        late: Control steps that began more than half a period late.
        holds: When and why the robot held its position.
        ended: How: ``done``, ``interrupted``, ``gave up: REASON``, or ``failed: ERROR``; empty while it runs.
    """

    ended: str = ""
    steps: int = 0
    seconds: float = 0.0
    late: int = 0
    holds: list[Hold] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        return asdict(self)

    @contextlib.contextmanager
    def noting(self) -> Iterator[None]:
        """Notes what ends the block, if it is an error or an interrupt."""
        try:
            yield
        except KeyboardInterrupt:
            self.ended = "interrupted"
            raise
        except BaseException as error:
            self.ended = f"gave up: {error}" if isinstance(error, ScaffoldError) else f"failed: {error!r}"
            raise


class RobotHand(Hand):
    """The hand of a real robot: joints as reported, fingertips by forward kinematics."""

    def __init__(self, composition: Composition):
        super().__init__(composition, count=1, device="cpu")
        tips = list(composition.robot.fingertips.values())
        usd = composition.usd(composition.robot.usd)
        self._tips = KinematicTree(usd, self.joint_names, tips, device="cpu", base=self.base)
        self._position = self._velocity = torch.zeros(1, len(self.joint_names))

    def take(self, state: JointState) -> None:
        """Sets the joint state."""
        self._position = self._tensor(state.position)[None]
        self._velocity = self._tensor(state.velocity)[None]

    @property
    def joint_pos(self) -> torch.Tensor:
        """Joint positions [m, rad], shape (1, J)."""
        return self._position

    @property
    def joint_vel(self) -> torch.Tensor:
        """Joint velocities [m/s, rad/s], shape (1, J)."""
        return self._velocity

    @property
    def fingertip_poses(self) -> torch.Tensor:
        """Poses of the fingertips in the env frame, xyz [m] + quat_xyzw, shape (1, 4, 7)."""
        return self._tips.poses(self._position)


class PlanExecution(PlanTargets):
    """A plan that is being carried out: what the observation terms read of an env's plan command.

    Attributes:
        robot: The hand.
        keypoints: Where the keypoints are now, env frame [m], shape (1, K, 3).
    """

    def __init__(self, plan: Plan, robot: RobotHand, steps: int):
        keypoints, wrist = plan.tracks(steps)
        self.robot = robot
        self.keypoint_tracks = torch.as_tensor(keypoints, dtype=torch.float32)[None]
        self.wrist_tracks = torch.as_tensor(wrist, dtype=torch.float32)[None]
        self.plan_id = self.step = torch.zeros(1, dtype=torch.long)
        self.keypoints = self.initial_keypoints


class Deployment:
    """One plan on one robot.

    Where a joint state or a trusted pose is missing the robot holds its last targets, the plan stands still, and
    both go on when it is back.

    Args:
        composition: The task.
        policy: Observation to action, e.g. :class:`~scaffoldlab.deployment.policy.OnnxPolicy`.
        metadata: What the policy was trained for.
        plan: Plan to carry out.
        robot: The robot.
        tracker: Poses of every body that carries a keypoint and can move.
        pose_ec: Camera to env frame, shape (4, 4).
        limits: When to hold.
        report: Where to note what happens; None begins a new one.
        clock: Time [s].
        sleep: Waits [s].

    Attributes:
        report: What has happened until now.

    Raises:
        ScaffoldError: Policy, plan and task do not fit each other.
    """

    def __init__(
        self,
        composition: Composition,
        *,
        policy: Callable[[np.ndarray], np.ndarray],
        metadata: PolicyMetadata,
        plan: Plan,
        robot: Robot,
        tracker: PoseTracker,
        pose_ec: np.ndarray,
        limits: DeploymentLimits | None = None,
        report: DeploymentReport | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ):
        check_fit(composition, metadata, plan)
        self.metadata, self.policy, self.robot, self.tracker = metadata, policy, robot, tracker
        self.limits, self.clock, self.sleep = limits or DeploymentLimits(), clock, sleep
        self.hand = RobotHand(composition)
        self.execution = PlanExecution(plan, self.hand, metadata.episode_steps)
        self.residual = ResidualAction(
            self.hand, position_limit=metadata.position_limit, rotation_limit=metadata.rotation_limit,
            fingers=metadata.finger_actions, gamma=metadata.action_average, damping=metadata.arm_damping,
        )  # fmt: skip
        self.report = report or DeploymentReport()
        self._offsets = torch.tensor(metadata.horizon_offsets)
        # The terms of the simulation read the plan command of an env and nothing else.
        self._env: Any = SimpleNamespace(command_manager=SimpleNamespace(get_term=lambda name: self.execution))
        self._keypoints_of = {k.body: [] for k in plan.keypoints}
        for number, keypoint in enumerate(plan.keypoints):
            self._keypoints_of[keypoint.body].append(number)
        points = np.array([k.point_b for k in plan.keypoints])
        self._gates: dict[str, PoseGate] = {}
        for body, numbers in self._keypoints_of.items():
            pose = static_pose(composition, body)
            if pose is None:
                self._gates[body] = PoseGate(
                    body, points[numbers], pose_ec,
                    max_age=self.limits.pose_age, max_jump=self.limits.jump, settle=self.limits.settle,
                )  # fmt: skip
            else:
                self.execution.keypoints[0, numbers] = torch.as_tensor(
                    pose_apply(pose, points[numbers]), dtype=torch.float32
                )
        self._held: tuple[str, float] | None = None

    def run(self) -> DeploymentReport:
        """Starts and carries out the whole plan at the control rate; :attr:`report` also says how that ended.

        Raises:
            ScaffoldError: Hand or objects are not where the plan starts, a hold lasted longer than the patience, or
                an action is not finite.
        """
        try:
            with self.report.noting():
                self.start()
                self._carry_out()
                self.report.ended = "done"
        finally:
            self._end_hold()
        return self.report

    def start(self) -> None:
        """Waits for joints and poses, checks that they are where the plan starts, and begins the average there."""
        deadline = self.clock() + self.limits.patience
        while (trouble := self._sense()) and self.clock() < deadline:
            self.sleep(1 / self.metadata.control_rate_hz)
        if trouble:
            raise ScaffoldError(
                f"deployment: not started after {self.limits.patience:g} s: {trouble}. The robot was not told to move. "
                "Look whether the robot sends its joints and the tracker has found every object, and start again, or "
                "raise the patience."
            )
        self._check_start()
        self.hand.target = self.hand.joint_pos.clone()

    def tick(self) -> bool:
        """One control step, or a hold; returns whether the plan went on.

        Raises:
            ScaffoldError: The hold has lasted longer than the patience.
        """
        trouble = self._sense()
        if trouble:
            self._hold(trouble)
        else:
            self._resume()
            action = torch.as_tensor(self.policy(self.observation()), dtype=torch.float32)[None]
            if not torch.isfinite(action).all():
                raise ScaffoldError(
                    f"deployment: step {self.report.steps}: the policy's action is {action[0].tolist()}; allowed: "
                    "finite numbers. The robot holds its position. Evaluate the checkpoint in simulation, and export "
                    "it or another one again."
                )
            self.residual(action, self.execution.wrist_targets)
            self.execution.step = self.execution.step + 1
            self.report.steps += 1
        self.robot.send(self.hand.target[0].numpy())
        return not trouble

    def observation(self) -> np.ndarray:
        """What the policy sees now, by the terms of the simulation, shape (observation_size,)."""
        parts = [
            observations.future_targets(self._env, self._offsets, self.metadata.relative_plan)
            if name == "future_plan"
            else observations.TERMS[name](self._env)
            for name in self.metadata.observation_terms
        ]
        return torch.cat(parts, -1)[0].numpy()

    def _carry_out(self) -> None:
        period = 1 / self.metadata.control_rate_hz
        begun = due = self.clock()
        while self.report.steps < self.metadata.episode_steps:
            self.tick()
            due += period
            late = self.clock() - due
            if late > period / 2:
                self.report.late += 1
                due = self.clock()  # no burst of steps to catch up
            self.sleep(max(0.0, due - self.clock()))
            self.report.seconds = self.clock() - begun

    # --- sensing and holding ------------------------------------------------------------------------------------

    def _sense(self) -> str:
        """Takes in what has arrived; returns why there is nothing to rely on, or nothing."""
        now = self.clock()
        state = self.robot.state()
        poses = self.tracker.poll()
        for body, gate in self._gates.items():
            gate.update(poses.get(body), now)
            if gate.points_e is not None:
                numbers = self._keypoints_of[body]
                self.execution.keypoints[0, numbers] = torch.as_tensor(gate.points_e, dtype=torch.float32)
        if state is None or now - state.time > self.limits.joint_age:
            return f"no joint state for {self.limits.joint_age:g} s"
        self.hand.take(state)
        return next((gate.trouble for gate in self._gates.values() if gate.trouble), "")

    def _hold(self, reason: str) -> None:
        if self._held is None:
            self._held = reason, self.clock()
            logger.warning("step %d: holding: %s", self.report.steps, reason)
        elif self.clock() - self._held[1] > self.limits.patience:
            raise ScaffoldError(
                f"deployment: held at step {self.report.steps} for {self.limits.patience:g} s: {reason}. The robot "
                "holds its position. Look at tracker and robot, and start again."
            )

    def _resume(self) -> None:
        if self._end_hold():
            logger.warning("step %d: going on after %.1f s", self.report.steps, self.report.holds[-1].seconds)

    def _end_hold(self) -> bool:
        """Notes the hold that is open; returns whether there was one."""
        if self._held is None:
            return False
        reason, since = self._held
        self.report.holds.append(Hold(self.report.steps, reason, round(self.clock() - since, 3)))
        self._held = None
        return True

    def _check_start(self) -> None:
        execution, limits = self.execution, self.limits
        wrist = (self.hand.wrist - execution.wrist_targets)[0]
        distance, angle = float(wrist[:3].norm()), float(wrist[3:].abs().max())
        if distance > limits.start_distance or angle > limits.start_angle:
            raise ScaffoldError(
                f"deployment: the hand is {100 * distance:.0f} cm and {angle:.2f} rad from where the plan starts; "
                f"allowed: {100 * limits.start_distance:g} cm and {limits.start_angle:g} rad. Move it to hand point, "
                f"roll, pitch, yaw {np.round(execution.wrist_targets[0].numpy(), 3).tolist()} (env frame)."
            )
        off = (execution.keypoints - execution.initial_keypoints)[0].norm(dim=-1)
        if off.max() > limits.start_distance:
            name = self.metadata.keypoint_names[int(off.argmax())]
            raise ScaffoldError(
                f"deployment: keypoint {name!r} is {100 * float(off.max()):.0f} cm from where the plan starts; "
                f"allowed: {100 * limits.start_distance:g} cm. The plan was made for another scene: plan again, or "
                "check camera_in_env.txt and the frame of the tracked mesh."
            )


def check_fit(composition: Composition, metadata: PolicyMetadata, plan: Plan | None = None) -> None:
    """Refuses a policy, or a plan if there is one, that is not for this task.

    Raises:
        ScaffoldError: With what differs.
    """
    task, robot = composition.task, composition.robot
    pairs = {
        "task of the policy": (metadata.task, task.name),
        "robot of the policy": (metadata.robot, task.robot),
        "joints of the policy": (metadata.joint_names, robot.wrist_joints + robot.finger_joints),
        "keypoints of the policy": (metadata.keypoint_names, list(task.keypoint_names)),
    }
    if plan:
        pairs["task of the plan"] = plan.task, task.name
        pairs["keypoints of the plan"] = [k.name for k in plan.keypoints], list(task.keypoint_names)
    for what, (got, expected) in pairs.items():
        if got != expected:
            raise ScaffoldError(f"deployment: {what}: got {got}; allowed: {expected}. Use the files of one task.")
    for name in metadata.observation_terms:
        if name not in observations.TERMS:
            raise unknown_name("observation term", name, observations.TERMS, "policy metadata")


def static_pose(composition: Composition, body: str) -> np.ndarray | None:
    """Pose of a body that never moves in the env frame, xyz [m] + quat_xyzw, shape (7,); None for the others."""
    asset = composition.scene.asset(body.partition("/")[0], str(composition.source))
    return asset.pose() if asset.kind == "static" else None


def tracked_bodies(composition: Composition, plan: Plan | None = None) -> list[str]:
    """Bodies whose poses a tracker has to give: those that can move and carry a keypoint of the plan, or the task."""
    keypoints = plan.keypoints if plan else composition.task.keypoints
    return [b for b in dict.fromkeys(k.body for k in keypoints) if static_pose(composition, b) is None]
