"""The hand of an env: its joints, fingertips and drives in Isaac Lab."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from scaffoldlab.robots.hand import Hand

if TYPE_CHECKING:
    from isaaclab.assets import Articulation
    from isaaclab.envs import ManagerBasedEnv

    from scaffoldlab.specs.models import Composition


class HandRobot(Hand):
    """Joint and body indices of the hand of every env, and its wrist as hand point plus roll, pitch, yaw."""

    def __init__(self, env: ManagerBasedEnv, composition: Composition):
        super().__init__(composition, count=env.num_envs, device=env.device)
        self.asset: Articulation = env.scene["robot"]
        joints, _ = self.asset.find_joints(self.joint_names, preserve_order=True)
        tips, _ = self.asset.find_bodies(list(composition.robot.fingertips.values()), preserve_order=True)
        self.joints, self.tips = torch.tensor(joints, device=self.device), torch.tensor(tips, device=self.device)
        self._joint_ids = self.joints.int()
        self._origins = env.scene.env_origins

    @property
    def joint_pos(self) -> torch.Tensor:
        """Wrist then finger joint positions [m, rad], shape (num_envs, J)."""
        return self.asset.data.joint_pos.torch[:, self.joints]

    @property
    def joint_vel(self) -> torch.Tensor:
        """Wrist then finger joint velocities [m/s, rad/s], shape (num_envs, J)."""
        return self.asset.data.joint_vel.torch[:, self.joints]

    @property
    def fingertip_poses(self) -> torch.Tensor:
        """Poses of the fingertips in the env frame, xyz [m] + quat_xyzw, shape (num_envs, 4, 7)."""
        poses = self.asset.data.body_link_pose_w.torch[:, self.tips].clone()
        poses[..., :3] -= self._origins[:, None]
        return poses

    def restore(self, env_ids: torch.Tensor, wrist: torch.Tensor) -> None:
        """Puts the hand at rest at a wrist pose with open fingers, targets included."""
        position = self.start(wrist)
        ids = env_ids.int()
        self.asset.write_joint_state_to_sim_index(
            position=position, velocity=torch.zeros_like(position), joint_ids=self._joint_ids, env_ids=ids
        )
        self.target[env_ids] = position
        self.send_target(ids)

    def send_target(self, env_ids: torch.Tensor | None = None, *, noise: float = 0.0) -> None:
        """Sends :attr:`target`, plus noise of that standard deviation [m, rad], to the drives of some or all envs."""
        value = self.target if env_ids is None else self.target[env_ids]
        value = value + noise * torch.randn_like(value) if noise else value
        self.asset.actuators.target_command.set_position_index(value=value, joint_ids=self._joint_ids, env_ids=env_ids)
