"""The residual action: offsets to the plan's wrist, opening and closing of the fingers, exponentially averaged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from isaaclab.managers import ActionTerm, ActionTermCfg
from isaaclab.utils import configclass

from scaffoldlab.robots.hand import ResidualAction

if TYPE_CHECKING:
    from isaaclab.envs import ManagerBasedRLEnv

    from scaffoldlab.terms.plan_command import PlanCommand


class ResidualHandAction(ActionTerm):
    """Wrist offsets and finger closure, as :class:`~scaffoldlab.robots.hand.ResidualAction` says.

    Actions in [-1, 1], shape (num_envs, 6 + F). The reset starts the average at the initial joint positions. What is
    sent to the drives is the average, with noise if asked for.
    """

    cfg: ResidualHandActionCfg

    def __init__(self, cfg: ResidualHandActionCfg, env: ManagerBasedRLEnv):
        super().__init__(cfg, env)
        self.plan: PlanCommand = env.command_manager.get_term("plan")  # type: ignore[assignment]
        self.robot = self.plan.robot
        self.residual = ResidualAction(
            self.robot, position_limit=cfg.position_limit, rotation_limit=cfg.rotation_limit,
            fingers=cfg.fingers, gamma=cfg.gamma, damping=cfg.damping,
        )  # fmt: skip
        self._sent = False
        self._raw = torch.zeros(self.num_envs, self.action_dim, device=self.device)

    @property
    def action_dim(self) -> int:
        """6 + 1, or 6 + one for each finger."""
        return self.residual.size

    @property
    def raw_actions(self) -> torch.Tensor:
        """Actions as given, shape (num_envs, action_dim)."""
        return self._raw

    @property
    def processed_actions(self) -> torch.Tensor:
        """Averaged joint targets [m, rad], shape (num_envs, J)."""
        return self.robot.target

    def process_actions(self, actions: torch.Tensor) -> None:
        """Turns actions into averaged joint targets, once per control step."""
        self._raw[:] = actions
        self.residual(actions, self.plan.wrist_targets)
        self._sent = False

    def apply_actions(self) -> None:
        """Sends the targets to the drives in the first physics step; they hold for the others."""
        if not self._sent:
            self.robot.send_target(noise=self.cfg.noise)
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
    noise: float = 0.0
    """Standard deviation of what is added to the targets that are sent, drawn every control step [m, rad].

    The paper's 0.05 (appendix C.4) is on the average that the policy observes; this is the other way to read it.
    """
    damping: float | None = None
    """lambda of an arm's damped least squares (eq. 5); None for that of the robot file."""
