"""Ways to run an env that the simulator tests share."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from scaffoldlab.evaluation.rollout import Policy, timed_close
from scaffoldlab.planners.making import scripted_library
from scaffoldlab.plans.library import PlanLibrary
from scaffoldlab.specs.models import load_task
from scaffoldlab.terms.observations import plan_of
from scaffoldlab.terms.plan_command import PlanCommand

CLOSE = timed_close(0.40)
"""Follows the plan and closes the hand at 40 % of the episode: the scripted grasp."""


def start(
    env: Any, *, seed: int = 3, library: PlanLibrary | None = None, lenient: bool = True
) -> tuple[PlanCommand, dict[str, torch.Tensor]]:
    """Resets every env to a plan of its own; returns the plan command and the first observations."""
    plan = plan_of(env)
    plan.use(library or scripted_library(load_task(plan.cfg.task), count=env.num_envs, seed=seed))
    plan.assign(torch.arange(env.num_envs, device=env.device))
    plan.lenient = lenient
    observations, _ = env.reset()
    return plan, observations


def run(
    env: Any,
    plan: PlanCommand,
    observations: dict[str, torch.Tensor],
    policy: Policy,
    *,
    until: int | None = None,
    each: Callable[[int], object] = lambda step: None,
) -> dict[str, torch.Tensor]:
    """Runs all envs up to a control step of the episode, at most the last; ``each`` is called after every step."""
    with torch.inference_mode():
        for step in range(int(plan.step[0]) + 1, min(until or plan.steps, plan.steps)):
            observations, *_ = env.step(policy(observations, plan))
            each(step)
    return observations


def with_wrist_noise(policy: Policy, *, sigma: float, seed: int) -> Policy:
    """The policy with N(0, sigma^2) on the six wrist actions of every step."""
    generator = torch.Generator().manual_seed(seed)

    def noisy(observations: dict[str, torch.Tensor], plan: PlanCommand) -> torch.Tensor:
        actions = policy(observations, plan)
        actions[:, :6] = sigma * torch.randn(actions[:, :6].shape, generator=generator)
        return actions

    return noisy


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """A copy as float64."""
    return tensor.detach().cpu().double().numpy().copy()
