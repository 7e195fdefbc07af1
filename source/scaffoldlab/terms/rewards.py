"""The two rewards of Scaffolds, eq. 3, and an action penalty; Isaac Lab scales each by weight and step time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch

from scaffoldlab.terms.observations import plan_of

if TYPE_CHECKING:
    from isaaclab.envs import ManagerBasedRLEnv


def keypoint_tracking(env: ManagerBasedRLEnv) -> torch.Tensor:
    """exp(-beta mean_i |x_i - x~_i|), shape (num_envs,). Eq. 3, first term."""
    return plan_of(env).measure().reward


def fingertip_contact(
    env: ManagerBasedRLEnv,
    sensors: Sequence[str] = ("contact",),
    mode: Literal["count", "force"] = "count",
    minimum_force: float = 1e-3,
) -> torch.Tensor:
    """exp(-1 / (N + eps)), shape (num_envs,). Eq. 3, second term, for contacts with the task's object only.

    Args:
        env: The env.
        sensors: Contact sensors of the object's bodies, filtered by the fingertips.
        mode: ``count`` (the paper): N fingertips touch. ``force`` (its code): N sums forces clipped to 1 N.
        minimum_force: Force above which a fingertip counts as touching [N].
    """
    force = fingertip_forces(env, sensors)
    contacts = (force > minimum_force).float() if mode == "count" else force.clamp(max=1.0)
    return torch.exp(-1.0 / (contacts.sum(-1) + 1e-6))


def hand_to_object(env: ManagerBasedRLEnv, beta: float = 10.0) -> torch.Tensor:
    """exp(-beta |hand point - first keypoint|), shape (num_envs,): of "RL with complex reward", appendix E.1."""
    plan = plan_of(env)
    return torch.exp(-beta * (plan.robot.wrist[:, :3] - plan.keypoints[:, 0]).norm(dim=-1))


def task_success(env: ManagerBasedRLEnv) -> torch.Tensor:
    """1 while the success condition holds, shape (num_envs,): of "RL with complex reward", appendix E.1."""
    return plan_of(env).success().float()


def fingertip_forces(env: ManagerBasedRLEnv, sensors: Sequence[str] = ("contact",)) -> torch.Tensor:
    """Contact force between each fingertip and the object [N], shape (num_envs, 4); on several bodies, their sum."""
    return torch.stack([env.scene[name].data.force_matrix_w.torch[:, 0].norm(dim=-1) for name in sensors]).sum(0)


def action_magnitude(env: ManagerBasedRLEnv) -> torch.Tensor:
    """|a|^2, shape (num_envs,); the paper's code weighs it by -0.001, the default here is 0."""
    return env.action_manager.action.square().sum(-1)


def action_excess(env: ManagerBasedRLEnv) -> torch.Tensor:
    """sum_i max(|a_i| - 1, 0)^2, shape (num_envs,): what an action asks for beyond its clip, 0 in the paper.

    Beyond the clip an action changes nothing, so its mean drifts there and no longer comes back.
    """
    return (env.action_manager.action.abs() - 1).clamp(min=0).square().sum(-1)
