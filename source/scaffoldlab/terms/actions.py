"""The residual action: offsets to the plan's wrist, opening and closing of the fingers, exponentially averaged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from isaaclab.managers import ActionTerm, ActionTermCfg
from isaaclab.utils import configclass

if TYPE_CHECKING:
    from isaaclab.envs import ManagerBasedRLEnv

    from scaffoldlab.terms.plan_command import PlanCommand


class ResidualHandAction(ActionTerm):
    """Wrist offsets and finger closure (Scaffolds, eq. 4 and appendix B.2).

    Actions in [-1, 1], shape (num_envs, 6 + F): three offsets of the hand point scaled to ``position_limit``,
    three of roll, pitch, yaw scaled to ``rotation_limit``, then the closure of the fingers (F = 1) or of each
    finger (F = 4), clipped to [0, 1]. The zero action follows the plan with an open hand. The joint targets are
    averaged as avg = gamma avg + (1 - gamma) target; the reset starts the average at the initial joint positions.
    """

    cfg: ResidualHandActionCfg

    def __init__(self, cfg: ResidualHandActionCfg, env: ManagerBasedRLEnv):
        super().__init__(cfg, env)
        self.plan: PlanCommand = env.command_manager.get_term("plan")  # type: ignore[assignment]
        self.robot = self.plan.robot
        self._sent = False
        self._raw = torch.zeros(self.num_envs, self.action_dim, device=self.device)
        limits = [cfg.position_limit] * 3 + [cfg.rotation_limit] * 3
        self._limits = torch.tensor(limits, device=self.device)
        fingers = 0 if cfg.fingers == "all" else self.robot.finger_of_joint
        self._closure_of_joint = 6 + fingers + torch.zeros_like(self.robot.finger_of_joint)

    @property
    def action_dim(self) -> int:
        """6 + 1, or 6 + one for each finger."""
        return 6 + (1 if self.cfg.fingers == "all" else int(self.robot.finger_of_joint.max()) + 1)

    @property
    def raw_actions(self) -> torch.Tensor:
        """Actions as given, shape (num_envs, action_dim)."""
        return self._raw

    @property
    def processed_actions(self) -> torch.Tensor:
        """Joint targets sent to the drives [m, rad], shape (num_envs, 22)."""
        return self.robot.target

    def process_actions(self, actions: torch.Tensor) -> None:
        """Turns actions into averaged joint targets, once per control step."""
        self._raw[:] = actions
        wrist = self.plan.wrist_targets + actions[:, :6].clamp(-1, 1) * self._limits
        closure = actions[:, self._closure_of_joint].clamp(0, 1)
        fingers = self.robot.open + closure * (self.robot.close - self.robot.open)
        target = torch.cat([self.robot.wrist_joints(wrist), fingers], -1)
        self.robot.target.lerp_(target, 1 - self.cfg.gamma)
        self._sent = False

    def apply_actions(self) -> None:
        """Sends the targets to the drives in the first physics step; they hold for the others."""
        if not self._sent:
            self.robot.send_target()
            self._sent = True


@configclass
class ResidualHandActionCfg(ActionTermCfg):
    """Configuration of :class:`ResidualHandAction`."""

    class_type: type = ResidualHandAction
    asset_name: str = "robot"
    fingers: str = "all"
    """``all``: one finger action; ``each``: one per finger."""
    position_limit: float = 0.05
    """Largest wrist offset [m] (the paper: 0.1)."""
    rotation_limit: float = 0.3
    """Largest wrist rotation [rad] (the paper: 1.0)."""
    gamma: float = 0.9
    """Weight of the past in the exponential average (Table 2)."""
