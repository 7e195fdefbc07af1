"""Demonstrations: successful rollouts of a policy, as observations and actions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from scaffoldlab.errors import ScaffoldError
from scaffoldlab.evaluation.rollout import Policy, run_episodes

if TYPE_CHECKING:
    from isaaclab.envs import ManagerBasedRLEnv

    from scaffoldlab.plans.library import PlanLibrary
    from scaffoldlab.terms.plan_command import PlanCommand


@dataclass(frozen=True)
class Demonstrations:
    """Episodes of equal length.

    Attributes:
        observations: Shape (E, T, O).
        actions: What was done after each of them, shape (E, T, A).
    """

    observations: torch.Tensor
    actions: torch.Tensor

    def windows(self, history: int, horizon: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Every step's last observations and next actions; beyond the ends the first or last one repeats.

        Returns:
            Observations, shape (E * T, history, O), and actions, shape (E * T, horizon, A).
        """
        steps = self.actions.shape[1]
        now = torch.arange(steps)[:, None]
        before = (now + torch.arange(1 - history, 1)).clamp(min=0)
        after = (now + torch.arange(horizon)).clamp(max=steps - 1)
        return self.observations[:, before].flatten(0, 1), self.actions[:, after].flatten(0, 1)


def collect(env: ManagerBasedRLEnv, library: PlanLibrary, teacher: Policy, *, count: int) -> Demonstrations:
    """Successful episodes of a policy, one of each of the first plans where it succeeds.

    Args:
        env: Env of the library's task, with at least as many envs as the library has plans.
        library: Plans.
        teacher: The policy.
        count: Demonstrations wanted.

    Raises:
        ScaffoldError: It succeeds less often.
    """
    seen, done = [], []

    def recorded(observations: dict[str, torch.Tensor], plan: PlanCommand) -> torch.Tensor:
        actions = teacher(observations, plan)
        seen.append(observations["policy"][: len(library)].cpu().clone())
        # What the env carries out: beyond the clip nothing changes, and an imitator need not learn it.
        done.append(actions[: len(library)].clamp(-1, 1).cpu().clone())
        return actions

    (episodes,) = run_episodes(env, library, {"teacher": recorded})
    rows = torch.as_tensor(episodes.success).nonzero().flatten()
    if len(rows) < count:
        raise ScaffoldError(
            f"demonstrations: the teacher succeeds in {len(rows)} of {len(library)} episodes and {count} are wanted. "
            "Train it longer, make more plans, or ask for fewer."
        )
    rows = rows[:count]
    return Demonstrations(torch.stack(seen, 1)[rows], torch.stack(done, 1)[rows])
