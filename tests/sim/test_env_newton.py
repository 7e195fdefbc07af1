"""The same task file on Newton's MuJoCo-Warp: it steps, the scripted grasp lifts the apple, no contact is dropped."""

import numpy as np
import pytest
import torch
from episodes import CLOSE, run, start, to_numpy, with_wrist_noise

from scaffoldlab.errors import ScaffoldError
from scaffoldlab.evaluation.rollout import run_episodes, zero_action
from scaffoldlab.planners.making import scripted_library
from scaffoldlab.specs.models import load_task

NEWTON = "physics=newton_mjwarp"
NUM_ENVS = 64

# The first run compiles the engine's kernels, which takes a minute or two.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def env(simulation):
    return simulation.env("move_apple", num_envs=NUM_ENVS, overrides=(NEWTON,))


def test_reset_restores_the_state_that_the_plan_was_made_for(env):
    plan, _ = start(env)
    apple = to_numpy(env.scene["apple"].data.root_link_pose_w.torch)
    apple[:, :3] -= to_numpy(env.scene.env_origins)
    np.testing.assert_allclose(apple, [p.initial_state["apple"] for p in plan.library.plans], atol=1e-4)
    np.testing.assert_allclose(
        to_numpy(plan.robot.wrist), [p.initial_state["hand"] for p in plan.library.plans], atol=1e-4
    )
    env.step(torch.zeros(NUM_ENVS, 7))
    planned = np.stack([p.keypoints_e[0] for p in plan.library.plans])
    assert np.linalg.norm(to_numpy(plan.keypoints) - planned, axis=-1).max() < 0.003
    assert plan.distance.reward.min() > 0.95


def test_scripted_grasp_lifts_the_apple_and_holds_under_wrist_noise(env):
    """Lifted is 3 cm off the counter. Under wrist noise of sigma 0.5, 70 % of 64 envs must still succeed."""
    library = scripted_library(load_task("move_apple"), count=NUM_ENVS, seed=3)
    plan, observations = start(env, library=library)
    highest = plan.keypoints[:, 0, 2].clone()

    def watch(step):
        torch.maximum(highest, plan.keypoints[:, 0, 2], out=highest)

    run(env, plan, observations, CLOSE, each=watch)
    lifted = (highest > 0.9355 + 0.03).float().mean().item()
    (noisy,) = run_episodes(env, library, {"noisy": with_wrist_noise(CLOSE, sigma=0.5, seed=1)})
    print(f"lifted {lifted:.0%}, success {plan.succeeded.float().mean():.0%}, under noise {noisy.success_rate:.0%}")
    assert lifted >= 0.9
    assert noisy.success_rate >= 0.70


def test_open_hand_does_not_move_the_apple(env):
    (opened,) = run_episodes(env, scripted_library(load_task("move_apple"), count=NUM_ENVS, seed=3), {"": zero_action})
    assert opened.success_rate == 0


def test_overflow_of_the_contact_buffers_is_an_error(simulation):
    """The engine only logs it and lets things fall through each other."""
    small = "env.sim.physics.solver_cfg.nconmax=2"
    env = simulation.env("move_apple", num_envs=16, overrides=(NEWTON, small))
    plan, observations = start(env)
    with pytest.raises(ScaffoldError, match=r"newton_mjwarp: .*overflow.* in 16 envs .*nconmax"):
        run(env, plan, observations, CLOSE)
    simulation.close()


@pytest.mark.parametrize("task", ["close_pliers", "close_scissors"])
def test_articulation_that_nothing_holds_starts_in_its_state_and_lies_still(simulation, task):
    env = simulation.env(task, num_envs=16, overrides=(NEWTON,))
    plan, _ = start(env)
    name = load_task(task).task.keypoints[0].body.split("/")[0]
    tool = env.scene[name].data
    root = to_numpy(tool.root_link_pose_w.torch)
    root[:, :3] -= to_numpy(env.scene.env_origins)
    made = np.array([p.initial_state[name] for p in plan.library.plans])
    np.testing.assert_allclose(np.hstack([root, to_numpy(tool.joint_pos.torch)]), made, atol=1e-4)
    for _ in range(20):
        env.step(torch.zeros(16, 10))
    planned = np.stack([p.keypoints_e[0] for p in plan.library.plans])
    assert np.linalg.norm(to_numpy(plan.keypoints) - planned, axis=-1).max() < 0.005


def test_drawer_opens_on_the_same_engine(simulation):
    env = simulation.env("open_drawer", num_envs=16, overrides=(NEWTON,))
    library = scripted_library(load_task("open_drawer"), count=16, seed=3)
    (closed,) = run_episodes(env, library, {"close": CLOSE})
    print(f"newton_mjwarp: drawer opened by the scripted grasp in {closed.success_rate:.0%}")
    assert closed.success_rate >= 0.8
