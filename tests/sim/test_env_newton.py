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


def test_scripted_grasp_under_wrist_noise_lifts_the_apple_and_buffers_are_guarded(monkeypatch):
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

        check_contact_buffers(env, None)
        from isaaclab_newton.physics import NewtonManager

        monkeypatch.setattr(NewtonManager._solver.mjw_data, "naconmax", 0)
        with pytest.raises(ScaffoldError, match=r"room for 0.*nconmax"):
            check_contact_buffers(env, None)
