"""Runs episodes of several policies side by side, each episode from the exact initial state of its plan."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch

from scaffoldlab.evaluation.episodes import TIMED_CLOSES, ZERO_ACTION, Episodes
from scaffoldlab.terms.observations import plan_of

if TYPE_CHECKING:
    from isaaclab.envs import ManagerBasedRLEnv

    from scaffoldlab.evaluation.replan import Replanner
    from scaffoldlab.plans.library import PlanLibrary
    from scaffoldlab.terms.plan_command import PlanCommand

Policy = Callable[[dict[str, torch.Tensor], "PlanCommand"], torch.Tensor]
"""Observations and plan -> actions, shape (num_envs, action_dim)."""


def run_episodes(
    env: ManagerBasedRLEnv,
    library: PlanLibrary,
    policies: Mapping[str, Policy],
    *,
    trials: int = 1,
    replanner: Replanner | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> list[Episodes]:
    """Runs ``trials`` episodes of every plan with every policy; losing the plan does not end an episode here.

    Args:
        env: Env of the library's task, any number of envs.
        library: Plans, and with them the initial states.
        policies: Policies by name.
        trials: Episodes per plan and policy.
        replanner: Plans again where a plan is not followed; None keeps every plan to the end.
        on_step: Called with (steps done, steps in all) at the start of each batch and after each control step.

    Returns:
        One record per policy, in order.
    """
    plan = plan_of(env)
    names = list(policies)
    jobs = torch.tensor([(p, i) for p in range(len(names)) for _ in range(trials) for i in range(len(library))])
    parts, batches = [], jobs.split(env.num_envs)
    with _aside(env, plan):
        plan.use(library)
        plan.lenient = True
        for number, batch in enumerate(batches):
            progress = (lambda s, n=number: on_step(s + n * plan.steps, len(batches) * plan.steps)) if on_step else None
            parts.append(
                _run_batch(env, plan, [policies[name] for name in names], batch.to(env.device), progress, replanner)
            )
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    policy_of_job = jobs[:, 0].numpy()
    return [
        Episodes(
            policy=name,
            success=columns[0][rows],
            success_end=columns[1][rows],
            error=columns[2][rows],
            keypoint_error=columns[3][rows],
            threshold=plan.cfg.threshold,
            plan_id=jobs[rows, 1].numpy(),
        )
        for name, rows in ((name, np.flatnonzero(policy_of_job == p)) for p, name in enumerate(names))
    ]


@contextmanager
def _aside(env: ManagerBasedRLEnv, plan: PlanCommand) -> Iterator[None]:
    """Puts every running episode aside and takes it up again, so that an evaluation does not disturb training."""
    counters = env.common_step_counter, env.episode_length_buf.clone(), dict(env.extras)
    command = plan.snapshot()
    try:
        yield
    finally:
        env.reset()
        plan.resume(command)
        env.common_step_counter, env.extras = counters[0], counters[2]
        env.episode_length_buf[:] = counters[1]
        env.scene.write_data_to_sim()
        env.sim.forward()


@torch.inference_mode()
def _run_batch(
    env, plan, policies: list[Policy], jobs: torch.Tensor, on_step, replanner: Replanner | None = None
) -> tuple[np.ndarray, ...]:
    """Success, success at the end, error and keypoint error of at most ``num_envs`` episodes."""
    count = len(jobs)
    plan.assign(torch.cat([jobs[:, 1], jobs.new_zeros(env.num_envs - count)]))
    observations, _ = env.reset()
    if replanner is not None:
        replanner.begin(plan, count)
    if on_step:
        on_step(0)
    rows = [(jobs[:, 0] == p).nonzero().flatten() for p in range(len(policies))]
    actions = torch.zeros(env.num_envs, env.action_manager.total_action_dim, device=env.device)
    errors = torch.zeros(count, plan.steps - 1, device=env.device)
    keypoint_error = torch.zeros(count)
    for step in range(1, plan.steps):
        for policy, row in zip(policies, rows, strict=True):
            if len(row):
                actions[row] = policy(observations, plan)[row]
        observations, *_ = env.step(actions)
        errors[:, step - 1] = plan.distance.error[:count]
        if step == 1:
            keypoint_error = plan.keypoint_error()[:count]
        if replanner is not None and replanner.step(plan):
            observations = env.observation_manager.compute()  # of the new plans
        if on_step:
            on_step(step)
    succeeded, at_end = plan.succeeded[:count], plan.success()[:count]
    return tuple(t.cpu().numpy().copy() for t in (succeeded, at_end, errors, keypoint_error))


def zero_action(observations: dict[str, torch.Tensor], plan: PlanCommand) -> torch.Tensor:
    """Follows the plan with an open hand."""
    return torch.zeros(plan.num_envs, plan.action_dim, device=plan.device)


def timed_close(fraction: float) -> Policy:
    """Follows the plan and closes all fingers at a fraction of the episode."""

    def policy(observations: dict[str, torch.Tensor], plan: PlanCommand) -> torch.Tensor:
        actions = zero_action(observations, plan)
        actions[:, 6:] = (plan.step >= fraction * plan.steps).float()[:, None]
        return actions

    return policy


BASELINES: dict[str, Policy] = {
    ZERO_ACTION: zero_action,
    **{name: timed_close(fraction) for name, fraction in TIMED_CLOSES.items()},
}
"""What every evaluation runs beside the policy; the best timed close is the baseline to beat."""
