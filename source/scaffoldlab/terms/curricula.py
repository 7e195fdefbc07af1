"""What changes over training: the tracking error that is tolerated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from scaffoldlab.terms.observations import plan_of

if TYPE_CHECKING:
    from isaaclab.envs import ManagerBasedRLEnv


def anneal_threshold(env: ManagerBasedRLEnv, env_ids: Sequence[int], steps: int, final_fraction: float = 0.5) -> float:
    """Lowers delta linearly from delta_init to a fraction of it; returns it [m]. Scaffolds, section 3.3.

    Args:
        env: The env.
        env_ids: Unused; the threshold is one for all.
        steps: Control steps over which it falls.
        final_fraction: delta_final / delta_init (1/2 in the paper).
    """
    plan = plan_of(env)
    progress = min(env.common_step_counter / max(steps, 1), 1.0)
    delta = plan.cfg.threshold * (1 - (1 - final_fraction) * progress)
    plan.distance.delta.fill_(delta)
    return delta
