"""When an episode ends: the plan is lost, or over. Success is a metric and ends nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from scaffoldlab.terms.observations import plan_of

if TYPE_CHECKING:
    from isaaclab.envs import ManagerBasedRLEnv


def tracking_lost(env: ManagerBasedRLEnv) -> torch.Tensor:
    """Whether the tracking error exceeds delta, shape (num_envs,). Scaffolds, section 3.3."""
    plan = plan_of(env)
    return plan.measure().exceeded & (not plan.lenient)


def plan_over(env: ManagerBasedRLEnv) -> torch.Tensor:
    """Whether all T steps of the plan are done, shape (num_envs,)."""
    plan = plan_of(env)
    plan.measure()
    return plan.step >= plan.steps
