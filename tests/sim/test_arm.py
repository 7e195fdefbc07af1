"""Move Apple over the arm: the env runs, its kinematics are the engine's, and the hand follows the plan."""

import numpy as np
import pytest
import torch
from episodes import CLOSE, run, start, to_numpy

from scaffoldlab.deployment.devices import JointState
from scaffoldlab.deployment.loop import RobotHand
from scaffoldlab.evaluation.rollout import zero_action
from scaffoldlab.specs.models import load_task
from scaffoldlab.tasks.simulation import make_cfg

TASK = "move_apple_arm"


@pytest.fixture(scope="module", params=["ovphysx", "newton_mjwarp"])
def env(request, simulation):
    """Move Apple on the arm, which extends Move Apple with trajectories twice as long."""
    yield simulation.env(TASK, num_envs=16, overrides=(f"physics={request.param}",))
    simulation.close()


def test_arm_replaces_the_six_wrist_joints_in_every_joint_row(env):
    """Appendix C.5: 23 joints instead of 22 in positions, velocities and action average; the rest is as before."""
    manager = env.observation_manager
    sizes = [shape[0] for shape in manager.group_obs_term_dim["policy"]]
    assert dict(zip(manager.active_terms["policy"], sizes, strict=True)) == {
        "joint_positions": 23, "joint_velocities": 23, "action_average": 23, "fingertip_poses": 28,
        "initial_keypoints": 6, "keypoints": 6, "wrist": 6, "future_plan": 180,
    }  # fmt: skip
    hand = env.cfg.actions.hand
    assert (hand.position_limit, hand.gamma, hand.damping) == (0.05, 0.9, 0.1)
    assert np.degrees(hand.rotation_limit) == pytest.approx(20) and env.action_manager.total_action_dim == 7


def test_paper_preset_has_the_papers_damping_average_and_length(env):
    """Appendix C: lambda 0.5, gamma 0.98, trajectories twice as long as 300 steps; residual of 0.1 m and 20 deg."""
    cfg = make_cfg(TASK, num_envs=4, device="cpu", overrides=("presets=paper",))
    hand = cfg.actions.hand
    assert (hand.damping, hand.gamma, hand.position_limit) == (0.5, 0.98, 0.1)
    assert np.degrees(hand.rotation_limit) == pytest.approx(20)
    assert cfg.commands.plan.steps == 600 and cfg.episode_length_s == 10.0


def test_reset_puts_the_hand_where_the_plan_starts(env):
    plan, _ = start(env)
    expected = np.array([p.initial_state["hand"] for p in plan.library.plans])
    np.testing.assert_allclose(to_numpy(plan.robot.wrist), expected, atol=2e-3)
    assert to_numpy(plan.robot.joint_vel).max() < 1e-6
    np.testing.assert_allclose(to_numpy(plan.robot.target), to_numpy(plan.robot.joint_pos), atol=1e-5)


def test_kinematics_are_those_of_the_engine(env):
    """Palm, fingertips and Jacobian by forward kinematics of the joints, while everything moves."""
    plan, observations = start(env)
    generator = torch.Generator().manual_seed(0)
    actions = lambda o, p: torch.randn(16, 7, generator=generator)  # noqa: E731
    run(env, plan, observations, actions, until=60)
    robot, hand = plan.robot, RobotHand(load_task(TASK))
    data = robot.asset.data
    palm = robot.asset.body_names.index("palm")
    poses = to_numpy(data.body_link_pose_w.torch[:, palm])
    for number in range(16):
        position, velocity = to_numpy(robot.joint_pos[number]), to_numpy(robot.joint_vel[number])
        hand.take(JointState(time=0.0, position=position, velocity=velocity))
        seen, known = to_numpy(robot.fingertip_poses[number]), to_numpy(hand.fingertip_poses[0])
        np.testing.assert_allclose(seen, known, atol=2e-4)
        center = poses[number, :3] - to_numpy(env.scene.env_origins[number])
        np.testing.assert_allclose(to_numpy(hand.arm._tree.poses(hand.joint_pos[:, :7]))[0, 0, :3], center, atol=1e-4)
    origin = torch.tensor(poses[:, :3] - to_numpy(env.scene.env_origins), dtype=torch.float32)
    mine = hand.arm._tree.jacobian(robot.joint_pos[:, :7], "palm", origin)
    theirs = data.body_link_jacobian_w.torch
    row = palm - (theirs.shape[1] != len(robot.asset.body_names))  # PhysX leaves out the fixed base
    theirs = theirs[:, row, :, robot.joints[:7]]
    np.testing.assert_allclose(to_numpy(mine), to_numpy(theirs), atol=1e-3)


def test_zero_action_follows_the_plan_within_2_cm_of_where_it_was_a_quarter_of_a_second_ago(env):
    """In the air, where nothing is in the way: the plan is raised by 10 cm, which takes the first second."""
    plan, observations = start(env)
    plan.wrist_tracks[..., 2] += 0.10
    wrists, targets = [to_numpy(plan.robot.wrist)], [to_numpy(plan.wrist_targets)]

    def note(step):
        wrists.append(to_numpy(plan.robot.wrist))
        targets.append(to_numpy(plan.wrist_targets))

    run(env, plan, observations, zero_action, each=note)
    behind = (np.array(wrists)[15:] - np.array(targets)[:-15])[60:]
    distance = np.linalg.norm(behind[..., :3], axis=-1)
    assert distance.mean() < 0.01 and np.quantile(distance, 0.95) < 0.02
    assert np.abs(behind[..., 3:]).max() < 0.05
    at_rest = np.linalg.norm((wrists[-1] - targets[-1])[:, :3], axis=-1)
    assert at_rest.max() < 0.005


def test_scripted_grasp_moves_the_apple_with_the_arm(env):
    plan, observations = start(env)
    run(env, plan, observations, CLOSE)
    assert plan.succeeded.float().mean() >= 0.7
