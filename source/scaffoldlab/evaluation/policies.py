"""Policies from files: checkpoints of rsl_rl and diffusion policies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from scaffoldlab.errors import ScaffoldError
from scaffoldlab.imitation.diffusion import DiffusionPolicy, controller
from scaffoldlab.training import deterministic_policy, load_checkpoint, make_runner, sampled_policy

if TYPE_CHECKING:
    from isaaclab.envs import ManagerBasedRLEnv

    from scaffoldlab.evaluation.rollout import Policy


def load_policies(
    env: ManagerBasedRLEnv, task: str, path: Path, *, seed: int, overrides: Sequence[str]
) -> dict[str, Policy]:
    """The ``deterministic`` and the ``sampled`` form of a policy.

    A diffusion policy is deterministic when it starts from no noise.

    Args:
        env: An open env of the task.
        task: Task name.
        path: A checkpoint of rsl_rl, or a policy of ``scaffoldlab imitate``.
        seed: Seed of sampled actions.
        overrides: Hydra overrides and presets of the training.

    Raises:
        ScaffoldError: The file does not fit the env, or is no policy.
    """
    torch.manual_seed(seed)
    policy = DiffusionPolicy.load(path)
    if policy is not None:
        sizes = policy.settings.observation_dim, policy.settings.action_dim
        expected = env.observation_manager.group_obs_dim["policy"][0], env.action_manager.total_action_dim
        if sizes != expected:
            raise ScaffoldError(
                f"policy {path}: it has (observations, actions) {sizes}, and this env has {expected}. "
                "It was trained on another task, horizon or finger setting."
            )
        return {"deterministic": controller(policy, start=0.0), "sampled": controller(policy)}
    runner = make_runner(env, task, folder=None, seed=seed, overrides=list(overrides))
    load_checkpoint(runner, path)
    return {"deterministic": deterministic_policy(runner), "sampled": sampled_policy(runner)}
