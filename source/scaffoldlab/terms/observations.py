"""Observations of the policy (Scaffolds, Table 4); positions are in the env frame [m], no contact forces.

They read the plan of an env and nothing else: on a robot the same functions read the plan that is being carried out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from isaaclab.managers import ManagerTermBase, ObservationTermCfg

if TYPE_CHECKING:
    from isaaclab.envs import ManagerBasedRLEnv

    from scaffoldlab.terms.plan_command import PlanCommand


def plan_of(env: ManagerBasedRLEnv) -> PlanCommand:
    """The plan command of an env."""
    return env.command_manager.get_term("plan")  # type: ignore[return-value]


def joint_positions(env: ManagerBasedRLEnv) -> torch.Tensor:
    """Wrist and finger joint positions [m, rad], shape (num_envs, J)."""
    return plan_of(env).robot.joint_pos


def joint_velocities(env: ManagerBasedRLEnv) -> torch.Tensor:
    """Wrist and finger joint velocities [m/s, rad/s], shape (num_envs, J)."""
    return plan_of(env).robot.joint_vel


def action_average(env: ManagerBasedRLEnv) -> torch.Tensor:
    """Exponential average of the joint targets [m, rad], shape (num_envs, J)."""
    return plan_of(env).robot.target


def fingertip_poses(env: ManagerBasedRLEnv) -> torch.Tensor:
    """Fingertip positions [m] and quat_xyzw, shape (num_envs, 4 * 7)."""
    return plan_of(env).robot.fingertip_poses.flatten(1)


def initial_keypoints(env: ManagerBasedRLEnv) -> torch.Tensor:
    """Keypoint positions at the start of the episode [m], shape (num_envs, 3 K)."""
    return plan_of(env).initial_keypoints.flatten(1)


def keypoints(env: ManagerBasedRLEnv) -> torch.Tensor:
    """Keypoint positions now [m], shape (num_envs, 3 K)."""
    return plan_of(env).keypoints.flatten(1)


def wrist(env: ManagerBasedRLEnv) -> torch.Tensor:
    """Hand point [m] and roll, pitch, yaw [rad], shape (num_envs, 6)."""
    return plan_of(env).robot.wrist


class future_plan(ManagerTermBase):
    """Planned keypoints [m] and wrist [m, rad] at steps ahead, shape (num_envs, (3 K + 6) H).

    Params:
        offsets: H step offsets; the paper says 15, its code lists 14 (0..9, 20, 30, 40, 50).
        relative: Whether they are seen from the keypoints and the wrist as they are now, so that what the plan asks
            for next is an input and not a small difference of two large ones (docs/decisions).
    """

    def __init__(self, cfg: ObservationTermCfg, env: ManagerBasedRLEnv):
        super().__init__(cfg, env)
        self.offsets = torch.tensor(cfg.params["offsets"], device=env.device)

    def __call__(self, env: ManagerBasedRLEnv, offsets: tuple[int, ...], relative: bool) -> torch.Tensor:
        """Targets at ``offsets``, which were made a tensor once."""
        return future_targets(env, self.offsets, relative)


def future_targets(env: ManagerBasedRLEnv, offsets: torch.Tensor, relative: bool) -> torch.Tensor:
    """What :class:`future_plan` returns, with offsets as a tensor, shape (H,)."""
    plan = plan_of(env)
    keypoint_targets, wrist_targets = plan.future(offsets)
    if relative:
        keypoint_targets = keypoint_targets - plan.keypoints[:, None]
        wrist_targets = wrist_targets - plan.robot.wrist[:, None]
    return torch.cat([keypoint_targets.flatten(1), wrist_targets.flatten(1)], -1)


TERMS: dict[str, Callable[..., Any]] = {
    term.__name__: term
    for term in (
        joint_positions, joint_velocities, action_average, fingertip_poses, initial_keypoints, keypoints, wrist,
        future_plan,
    )
}  # fmt: skip
"""The terms by name, which is what an exported policy calls them by."""
