"""A hand as the policy sees it, wherever its joint positions come from: wrist, postures, averaged joint targets."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import torch
from isaaclab.utils.math import quat_apply, quat_from_euler_xyz

from scaffoldlab.geometry import quat_apply as np_quat_apply
from scaffoldlab.geometry import quat_xyzw_from_rpy
from scaffoldlab.robots.arm import Arm
from scaffoldlab.specs.models import Composition


class Hand(ABC):
    """Wrist and fingers in the order of the robot file; a subclass knows where the joints are.

    Attributes:
        joint_names: The J joints: those that move the wrist, then the fingers.
        center: Hand point seen from the palm, turned as at zero roll, pitch and yaw [m], shape (3,).
        open: Joint positions of open fingers [rad], shape (16,).
        close: Joint positions of closed fingers [rad], shape (16,).
        finger_of_joint: Number of each finger joint's finger, shape (16,).
        base: Pose of the robot's asset in the env frame, xyz [m] + quat_xyzw, shape (7,).
        arm: The arm that carries the hand, or None if it floats.
        target: Averaged targets of all joints [m, rad], shape (N, J); an action moves them.
    """

    def __init__(self, composition: Composition, *, count: int, device: str | torch.device):
        spec, grasp = composition.robot, composition.task.grasp
        self.device = device
        self.joint_names = spec.wrist_joints + spec.finger_joints
        self.wrist_count = len(spec.wrist_joints)
        palm_quat = quat_xyzw_from_rpy(np.radians(spec.palm_rpy_deg))
        self.center = self._tensor(np_quat_apply(palm_quat, np.array(grasp.center)))
        self.open = self._tensor([a for finger in spec.fingers for a in grasp.open[finger]])
        self.close = self._tensor([a for finger in spec.fingers for a in grasp.close[finger]])
        position, yaw = (spec.arm.position, spec.arm.yaw_deg) if spec.arm else ((0.0, 0.0, 0.0), 0.0)
        self.base = self._tensor([*position, *quat_xyzw_from_rpy(np.radians([0, 0, yaw]))])
        self.arm = Arm(composition, base=self.base, device=device) if spec.arm else None
        self.target = torch.zeros(count, len(self.joint_names), device=device)
        self.finger_of_joint = torch.tensor(
            [i for i, joints in enumerate(spec.fingers.values()) for _ in joints], device=device
        )

    @property
    @abstractmethod
    def joint_pos(self) -> torch.Tensor:
        """Joint positions [m, rad], shape (N, J)."""

    @property
    @abstractmethod
    def joint_vel(self) -> torch.Tensor:
        """Joint velocities [m/s, rad/s], shape (N, J)."""

    @property
    @abstractmethod
    def fingertip_poses(self) -> torch.Tensor:
        """Poses of the fingertips in the env frame, xyz [m] + quat_xyzw, shape (N, 4, 7)."""

    @property
    def wrist(self) -> torch.Tensor:
        """Hand point in the env frame [m], then roll, pitch, yaw [rad], shape (N, 6)."""
        joints = self.joint_pos
        if self.arm:
            return self.arm.wrist(joints[:, : self.wrist_count], self.center)
        return torch.cat([joints[:, :3] + self._offset(joints[:, 3:6]), joints[:, 3:6]], -1)

    def wrist_joints(self, wrist: torch.Tensor) -> torch.Tensor:
        """Targets of the joints that move the wrist, for a wrist target, shape (N, 6) -> (N, W).

        Those of an arm lie one damped step from where its joints are.
        """
        if self.arm:
            return self.arm.step(self.joint_pos[:, : self.wrist_count], wrist, self.center)
        return self._floating_joints(wrist)

    def prepare(self, wrist: torch.Tensor) -> None:
        """Says which wrist poses :meth:`start` will be asked for, shape (M, 6): an arm has to search once.

        Raises:
            ScaffoldError: The arm does not reach one of them.
        """
        if self.arm:
            self.arm.prepare(wrist, self.center)

    def start(self, wrist: torch.Tensor) -> torch.Tensor:
        """Joint positions of an open hand at rest at a wrist pose, shape (M, 6) -> (M, J)."""
        joints = self.arm.reach(wrist, self.center) if self.arm else self._floating_joints(wrist)
        return torch.cat([joints, self.open.expand(len(wrist), -1)], -1)

    def _floating_joints(self, wrist: torch.Tensor) -> torch.Tensor:
        return torch.cat([wrist[:, :3] - self._offset(wrist[:, 3:]), wrist[:, 3:]], -1)

    def _offset(self, rpy: torch.Tensor) -> torch.Tensor:
        quat = quat_from_euler_xyz(rpy[:, 0], rpy[:, 1], rpy[:, 2])
        return quat_apply(quat, self.center.expand(len(rpy), 3))

    def _tensor(self, values: object) -> torch.Tensor:
        return torch.as_tensor(values, dtype=torch.float32, device=self.device)


class ResidualAction:
    """What an action makes of the plan: averaged joint targets (Scaffolds, eq. 4 and appendix B.2).

    Actions in [-1, 1], shape (N, 6 + F): three offsets of the hand point, three of roll, pitch, yaw, then the closure
    of the fingers (F = 1) or of each finger (F = 4), clipped to [0, 1]. The zero action follows the plan with an
    open hand.

    Args:
        hand: Hand whose targets are moved.
        position_limit: Wrist offset of an action of 1 [m].
        rotation_limit: Wrist rotation of an action of 1 [rad].
        fingers: ``all`` or ``each``.
        gamma: Weight of the past in avg = gamma avg + (1 - gamma) target.
        damping: lambda of the arm that carries the hand, if there is one; None for that of the robot file.
    """

    def __init__(
        self,
        hand: Hand,
        *,
        position_limit: float,
        rotation_limit: float,
        fingers: str,
        gamma: float,
        damping: float | None = None,
    ):
        self.hand, self.gamma = hand, gamma
        if hand.arm and damping is not None:
            hand.arm.damping = damping
        self.size = 6 + (1 if fingers == "all" else int(hand.finger_of_joint.max()) + 1)
        self._limits = torch.tensor([position_limit] * 3 + [rotation_limit] * 3, device=hand.device)
        finger = 0 if fingers == "all" else hand.finger_of_joint
        self._closure_of_joint = 6 + finger + torch.zeros_like(hand.finger_of_joint)

    def __call__(self, actions: torch.Tensor, wrist_targets: torch.Tensor) -> None:
        """Moves the hand's averaged targets; once per control step."""
        hand = self.hand
        wrist = wrist_targets + actions[:, :6].clamp(-1, 1) * self._limits
        closure = actions[:, self._closure_of_joint].clamp(0, 1)
        fingers = hand.open + closure * (hand.close - hand.open)
        hand.target.lerp_(torch.cat([hand.wrist_joints(wrist), fingers], -1), 1 - self.gamma)
