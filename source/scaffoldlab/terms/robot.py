"""The floating hand as the terms see it: wrist and fingers in the order of the robot file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from isaaclab.utils.math import quat_apply, quat_from_euler_xyz

from scaffoldlab.geometry import quat_apply as np_quat_apply
from scaffoldlab.geometry import quat_xyzw_from_rpy

if TYPE_CHECKING:
    from isaaclab.assets import Articulation
    from isaaclab.envs import ManagerBasedEnv

    from scaffoldlab.specs.models import Composition


class HandRobot:
    """Joint and body indices of a floating hand, and its wrist as hand point plus roll, pitch, yaw.

    Attributes:
        target: Targets of wrist and finger joints [m, rad], shape (num_envs, 22); the action term averages into it.
    """

    def __init__(self, env: ManagerBasedEnv, composition: Composition):
        spec, grasp = composition.robot, composition.task.grasp
        self.asset: Articulation = env.scene["robot"]
        self.device = env.device
        joints, _ = self.asset.find_joints(spec.wrist_joints + spec.finger_joints, preserve_order=True)
        tips, _ = self.asset.find_bodies(list(spec.fingertips.values()), preserve_order=True)
        self.joints, self.tips = torch.tensor(joints, device=self.device), torch.tensor(tips, device=self.device)
        self._joint_ids = self.joints.int()
        palm_quat = quat_xyzw_from_rpy(np.radians(spec.palm_rpy_deg))
        self.center = self._tensor(np_quat_apply(palm_quat, np.array(grasp.center)))
        self.open = self._tensor([a for finger in spec.fingers for a in grasp.open[finger]])
        self.close = self._tensor([a for finger in spec.fingers for a in grasp.close[finger]])
        self.target = torch.zeros(env.num_envs, len(self.joints), device=self.device)
        self.finger_of_joint = torch.tensor(
            [i for i, joints in enumerate(spec.fingers.values()) for _ in joints], device=self.device
        )

    @property
    def joint_pos(self) -> torch.Tensor:
        """Wrist then finger joint positions [m, rad], shape (num_envs, 22)."""
        return self.asset.data.joint_pos.torch[:, self.joints]

    @property
    def joint_vel(self) -> torch.Tensor:
        """Wrist then finger joint velocities [m/s, rad/s], shape (num_envs, 22)."""
        return self.asset.data.joint_vel.torch[:, self.joints]

    @property
    def wrist(self) -> torch.Tensor:
        """Hand point in the env frame [m], then roll, pitch, yaw [rad], shape (num_envs, 6)."""
        joints = self.joint_pos
        return torch.cat([joints[:, :3] + self._offset(joints[:, 3:6]), joints[:, 3:6]], -1)

    def wrist_joints(self, wrist: torch.Tensor) -> torch.Tensor:
        """Wrist joint positions for a hand point and orientation, shape (N, 6) -> (N, 6)."""
        return torch.cat([wrist[:, :3] - self._offset(wrist[:, 3:]), wrist[:, 3:]], -1)

    def restore(self, env_ids: torch.Tensor, wrist: torch.Tensor) -> None:
        """Puts the hand at rest at a wrist pose with open fingers, targets included."""
        position = torch.cat([self.wrist_joints(wrist), self.open.expand(len(wrist), -1)], -1)
        ids = env_ids.int()
        self.asset.write_joint_state_to_sim_index(
            position=position, velocity=torch.zeros_like(position), joint_ids=self._joint_ids, env_ids=ids
        )
        self.target[env_ids] = position
        self.send_target(ids)

    def send_target(self, env_ids: torch.Tensor | None = None) -> None:
        """Sends :attr:`target` to the drives of some envs, or of all."""
        value = self.target if env_ids is None else self.target[env_ids]
        self.asset.actuators.target_command.set_position_index(value=value, joint_ids=self._joint_ids, env_ids=env_ids)

    def _offset(self, rpy: torch.Tensor) -> torch.Tensor:
        quat = quat_from_euler_xyz(rpy[:, 0], rpy[:, 1], rpy[:, 2])
        return quat_apply(quat, self.center.expand(len(rpy), 3))

    def _tensor(self, values: object) -> torch.Tensor:
        return torch.as_tensor(values, dtype=torch.float32, device=self.device)
