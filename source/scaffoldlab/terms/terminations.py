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
    """Whether all T steps of the plan are done, shape (num_envs,).

    The env's own counter ends an episode as well: trainers start it at random, which cuts the first episodes short
    and so takes the envs out of step. In step, every batch would show one phase of the plan only.
    """
    plan = plan_of(env)
    plan.measure()
    return (plan.step >= plan.steps) | (env.episode_length_buf >= env.max_episode_length)
