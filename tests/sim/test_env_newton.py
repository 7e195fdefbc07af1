"""The same task file on MuJoCo-Warp, on a CPU: slow, and unchanged."""

import pytest
import torch

from scaffoldlab.errors import ScaffoldError
from scaffoldlab.evaluation.rollout import run_episodes, timed_close
from scaffoldlab.planners.making import scripted_library
from scaffoldlab.specs.models import load_task
from scaffoldlab.tasks.simulation import open_env
from scaffoldlab.terms.events import check_contact_buffers
from scaffoldlab.terms.rewards import fingertip_forces

NUM_ENVS = 64


def test_scripted_grasp_under_wrist_noise_lifts_the_apple():
    library = scripted_library(load_task("move_apple"), count=NUM_ENVS, seed=3)
    generator, close, most_touching = torch.Generator().manual_seed(0), timed_close(0.40), 0.0
    with open_env("move_apple", num_envs=NUM_ENVS, seed=0, device="cpu", overrides=["physics=newton_mjwarp"]) as env:

        def noisy(observations, plan):
            nonlocal most_touching
            touching = (fingertip_forces(env) > 1e-3).float().sum(-1).mean().item()
            most_touching = max(most_touching, touching)
            actions = close(observations, plan)
            actions[:, :6] = 0.5 * torch.randn(actions[:, :6].shape, generator=generator)
            return actions

        (episodes,) = run_episodes(env, library, {"noisy": noisy})
        assert episodes.success_rate >= 0.70
        assert most_touching > 1, "the contact sensor sees the fingers on the apple"

        check_contact_buffers(env, None)  # nothing overflowed


def test_overflow_of_the_contact_buffers_is_an_error():
    overrides = ["physics=newton_mjwarp", "env.sim.physics.solver_cfg.nconmax=1"]
    with open_env("move_apple", num_envs=4, seed=0, device="cpu", overrides=overrides) as env:
        env.reset()
        actions = torch.zeros(4, env.action_manager.total_action_dim)

        def simulate() -> None:
            for _ in range(60):
                env.step(actions)

        with pytest.raises(ScaffoldError, match=r"buffer overflow.*nconmax"):
            simulate()
