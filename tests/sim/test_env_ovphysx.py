"""The environments on PhysX: what is observed, how they reset, the rewards, when they end, how a grasp goes."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from episodes import CLOSE, run, start, to_numpy, with_wrist_noise
from isaaclab_ov.physics import ovphysx_manager

from allegro import hand_kinematics, matrix_of
from conftest import ROOT
from scaffoldlab.errors import ScaffoldError
from scaffoldlab.evaluation.policies import load_policies
from scaffoldlab.evaluation.rollout import run_episodes, zero_action
from scaffoldlab.planners.making import scripted_library
from scaffoldlab.specs.initial_state import body_poses
from scaffoldlab.specs.models import load_task
from scaffoldlab.terms.observations import plan_of
from scaffoldlab.terms.rewards import fingertip_forces
from scaffoldlab.training import make_runner

TASKS = ("move_apple", "open_drawer", "close_pliers")
"""A rigid object, an articulation, and one that nothing holds, with an action per finger; what can go wrong in the
others is asked once of each, at the end."""
ALL = {path.parent.name for path in (ROOT / "tasks").glob("*/task.yaml")}
OTHERS = sorted(name for name in ALL - set(TASKS) if not load_task(name).robot.arm)  # of the arm: test_arm.py
NUM_ENVS = 64


@pytest.fixture(params=TASKS)
def task(request):
    return request.param


APPLE, PLIERS, HAMMER = (
    pytest.mark.parametrize("task", [name], indirect=True) for name in ("move_apple", "close_pliers", "hammer")
)
"""Of this task alone. By it the tests are sorted, so that each env is opened once: see conftest.py."""


@pytest.fixture
def env(simulation, task):
    return simulation.env(task, num_envs=NUM_ENVS if task in TASKS else 32)


def zeros(env) -> torch.Tensor:
    """The zero action."""
    return torch.zeros(env.num_envs, env.action_manager.total_action_dim)


def term_dims(env) -> dict[str, int]:
    manager = env.observation_manager
    shapes = manager.group_obs_term_dim["policy"]
    return {name: shape[0] for name, shape in zip(manager.active_terms["policy"], shapes, strict=True)}


def terms(env, observations) -> dict[str, np.ndarray]:
    """The policy's observation, cut into its terms."""
    values = to_numpy(observations["policy"])
    ends = np.cumsum(list(term_dims(env).values()))
    return dict(zip(term_dims(env), np.split(values, ends[:-1], axis=1), strict=True))


# --- observations ---------------------------------------------------------------------------------------------------


def test_observation_has_the_dimensions_of_table_4(env, task):
    """Joint positions, velocities and action average 22 each, fingertips 4 x 7, keypoints 3 K twice, wrist 6, and at
    15 steps ahead the keypoints, 3 K, and the wrist, 6: 190 + 6 K + 45 K in all."""
    count = len(load_task(task).task.keypoints)
    expected = {"joint_positions": 22, "joint_velocities": 22, "action_average": 22, "fingertip_poses": 28}
    expected |= {
        "initial_keypoints": 3 * count,
        "keypoints": 3 * count,
        "wrist": 6,
        "future_plan": (3 * count + 6) * 15,
    }
    assert term_dims(env) == expected
    assert env.observation_manager.group_obs_dim["policy"] == (190 + 6 * count + 45 * count,)
    assert env.action_manager.total_action_dim == 6 + {"all": 1, "each": 4}[load_task(task).task.grasp.actions]


def test_steps_give_finite_observations_and_rewards(env):
    _, observations = start(env)
    generator = torch.Generator().manual_seed(0)
    for _ in range(30):
        assert torch.isfinite(observations["policy"]).all()
        observations, reward, *_ = env.step(2 * torch.randn(zeros(env).shape, generator=generator))
        # Both terms of eq. 3 are in 0..1; the weights are 1 and 1/2, and Isaac Lab scales by the step of 1/60 s.
        assert ((reward >= 0) & (reward <= 1.5 / 60 + 1e-6)).all()


def test_observation_at_the_start_is_the_state_that_was_set(env, task):
    plan, observations = start(env)
    seen = terms(env, observations)
    composition = load_task(task)
    states = [p.initial_state for p in plan.library.plans]
    np.testing.assert_allclose(seen["wrist"], [s["hand"] for s in states], atol=1e-5)
    np.testing.assert_allclose(seen["joint_velocities"], 0, atol=1e-6)
    opened = [a for finger in composition.robot.fingers for a in composition.task.grasp.open[finger]]
    np.testing.assert_allclose(seen["joint_positions"][:, 6:], [opened] * NUM_ENVS, atol=1e-5)
    np.testing.assert_allclose(seen["action_average"], seen["joint_positions"], atol=1e-5)
    truth = [p.keypoints_e[0].ravel() for p in plan.library.plans]
    np.testing.assert_allclose(seen["initial_keypoints"], truth, atol=1e-5)
    np.testing.assert_allclose(seen["keypoints"], truth, atol=1e-5)


def test_fingertips_are_where_the_published_kinematics_put_them(env, task):
    """The whole chain from the plan's hand point to the fingertips, against plain rotation matrices."""
    plan, observations = start(env)
    composition = load_task(task)
    robot, grasp = composition.robot, composition.task.grasp
    opened = {j: a for f, joints in robot.fingers.items() for j, a in zip(joints, grasp.open[f], strict=True)}
    seen = terms(env, observations)["fingertip_poses"].reshape(NUM_ENVS, 4, 7)
    for number in range(0, NUM_ENVS, 7):
        hand = plan.library.plans[number].initial_state["hand"]
        wrist = dict(zip(("wrist_roll", "wrist_pitch", "wrist_yaw"), hand[3:], strict=True))
        palm = hand_kinematics(opened | wrist)["palm"][1]
        # The plan gives the hand point; the wrist joints put the palm where the point is then in the grasp's centre.
        position = hand[:3] - palm @ grasp.center
        wrist |= dict(zip(("wrist_x", "wrist_y", "wrist_z"), position, strict=True))
        chain = hand_kinematics(opened | wrist)
        for finger, pose in zip(robot.fingertips, seen[number], strict=True):
            expected_position, expected_rotation = chain[robot.fingertips[finger]]
            np.testing.assert_allclose(pose[:3], expected_position, atol=2e-4, err_msg=finger)
            np.testing.assert_allclose(matrix_of(pose[3:]), expected_rotation, atol=2e-3, err_msg=finger)


def test_future_is_the_plan_at_the_offsets_seen_from_now(env, task):
    plan, observations = start(env)
    observations = run(env, plan, observations, zero_action, until=40)
    step, offsets = int(plan.step[0]), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 20, 30, 40, 50, 60]
    assert step == 39
    seen = terms(env, observations)
    future = seen["future_plan"]
    count = len(load_task(task).task.keypoints)
    for number in range(0, NUM_ENVS, 9):
        keypoints, wrist = plan.library.plans[number].tracks(plan.steps)
        at = np.minimum(step + np.array(offsets), plan.steps - 1)
        now = seen["keypoints"][number].reshape(count, 3)
        np.testing.assert_allclose(future[number, : 45 * count].reshape(15, count, 3), keypoints[at] - now, atol=1e-5)
        np.testing.assert_allclose(
            future[number, 45 * count :].reshape(15, 6), wrist[at] - seen["wrist"][number], atol=1e-5
        )


# --- reset ----------------------------------------------------------------------------------------------------------


def test_reset_restores_the_state_that_the_plan_was_made_for(env, task):
    run(env, *start(env, seed=8), CLOSE, until=90)  # somewhere else first
    plan, _ = start(env)
    composition = load_task(task)
    for number, made in enumerate(plan.library.plans):
        for name, expected in made.initial_state.items():
            if name == "hand":
                np.testing.assert_allclose(to_numpy(plan.robot.wrist[number]), expected, atol=1e-4)
                continue
            spec, data, got = composition.scene.asset(name, ""), env.scene[name].data, []
            if composition.is_free(spec):
                got.append(to_numpy(data.root_link_pose_w.torch[number]))
                got[0][:3] -= to_numpy(env.scene.env_origins[number])
            if spec.joints:
                ids, _ = env.scene[name].find_joints(list(spec.joints), preserve_order=True)
                got.append(to_numpy(data.joint_pos.torch[number, ids]))
            np.testing.assert_allclose(np.concatenate(got), expected, atol=1e-4, err_msg=f"{name} of env {number}")
    for asset in env.scene.articulations.values():
        assert asset.data.joint_vel.torch.abs().max() < 1e-6
    for asset in (*env.scene.articulations.values(), *env.scene.rigid_objects.values()):
        assert asset.data.root_com_vel_w.torch.abs().max() < 1e-6


def test_present_state_at_the_start_is_the_initial_state(env):
    """What a planner that plans again is told."""
    plan, _ = start(env)
    for number in (0, 7):
        state, expected = plan.state(number), plan.library.plans[number].initial_state
        assert list(state) == list(expected)
        for name in state:
            np.testing.assert_allclose(state[name], expected[name], atol=1e-5)


def test_one_step_later_things_are_still_where_the_plan_starts(env):
    plan, _ = start(env)
    env.step(zeros(env))
    planned = np.stack([p.keypoints_e[0] for p in plan.library.plans])
    assert np.linalg.norm(to_numpy(plan.keypoints) - planned, axis=-1).max() < 0.003


def test_simulated_bodies_are_where_the_initial_state_says_they_are(env, task):
    """The planner's picture of the scene, made from the USD files alone, is that of the engine."""
    plan, _ = start(env)
    env.step(zeros(env))
    composition = load_task(task)
    names = plan._body_names
    for number in range(0, NUM_ENVS, 13):
        expected = body_poses(composition, plan.library.plans[number].initial_state)
        for column, name in enumerate(names):
            pose = to_numpy(plan.body_poses[number, column])
            np.testing.assert_allclose(pose[:3], expected[name][:3], atol=0.003, err_msg=name)
            assert abs(pose[3:] @ expected[name][3:]) > 0.9999, name


@APPLE
def test_each_env_gets_a_plan_at_random_or_the_one_that_is_assigned(env):
    plan = plan_of(env)
    plan.use(scripted_library(load_task("move_apple"), count=8, seed=0))
    drawn = []
    for _ in range(4):
        env.reset()
        drawn.append(plan.plan_id.clone())
    counts = np.bincount(torch.cat(drawn).numpy(), minlength=8)
    assert len(counts) == 8 and counts.min() >= 10 and counts.max() <= 60  # 32 each expected, deviation 5.3
    assert not torch.equal(drawn[0], drawn[1])
    plan.assign(torch.arange(NUM_ENVS) % 8)
    env.reset()
    np.testing.assert_array_equal(plan.plan_id, np.arange(NUM_ENVS) % 8)


# --- actions --------------------------------------------------------------------------------------------------------


def test_zero_action_follows_the_plan_with_an_open_hand(env):
    """In the air, where nothing is in the way: the plan is lifted by 1 m, above the counter and the fridge."""
    plan, observations = start(env)
    plan.wrist_tracks[..., 2] += 1.0
    run(env, plan, observations, zero_action)
    error = (plan.robot.wrist - plan.wrist_targets)[:, :3].norm(dim=-1)
    assert error.max() < 0.01
    fingers = plan.robot.joint_pos[:, 6:] - plan.robot.open
    assert fingers.abs().mean() < 0.02


@APPLE
def test_wrist_action_moves_the_hand_by_its_limits(env):
    """+1 is 5 cm and 0.3 rad, and 3 is no more than 1. Only the last two metres of the plan, at rest, are looked at."""
    plan, _ = start(env)
    actions = torch.zeros(NUM_ENVS, 7)
    directions = torch.arange(NUM_ENVS) % 6
    actions[torch.arange(NUM_ENVS), directions] = torch.where(torch.arange(NUM_ENVS) < 32, 1.0, -3.0)
    plan.wrist_tracks[:] = plan.wrist_tracks[:, :1]  # the hand stays in the air
    for _ in range(120):
        env.step(actions)
    moved = to_numpy(plan.robot.wrist) - np.stack([p.initial_state["hand"] for p in plan.library.plans])
    expected = np.zeros((NUM_ENVS, 6))
    limits = np.array([0.05, 0.05, 0.05, 0.3, 0.3, 0.3])
    for number in range(NUM_ENVS):
        expected[number, directions[number]] = limits[directions[number]] * (1 if number < 32 else -1)
    np.testing.assert_allclose(moved, expected, atol=0.004)


@APPLE
def test_finger_action_closes_from_open_to_close(env):
    """0 and below is open, 1 and above is closed, 1/2 is halfway; nothing is between the fingers."""
    plan, _ = start(env)
    plan.wrist_tracks[:] = plan.wrist_tracks[:, :1]
    plan.wrist_tracks[..., 2] = 1.5
    closure = torch.tensor([-1.0, 0.0, 0.5, 1.0, 4.0]).repeat(13)[:NUM_ENVS]
    for _ in range(150):
        env.step(torch.cat([torch.zeros(NUM_ENVS, 6), closure[:, None]], 1))
    grasp = load_task("move_apple").task.grasp
    opened, closed = (
        np.array([a for f in p for a in getattr(grasp, k)[f]]) for k, p in (("open", grasp.open), ("close", grasp.open))
    )
    share = np.clip(closure.numpy(), 0, 1)[:, None]
    np.testing.assert_allclose(to_numpy(plan.robot.joint_pos[:, 6:]), opened + share * (closed - opened), atol=0.06)


@APPLE
def test_targets_are_averaged_exponentially(env):
    """avg = 0.9 avg + 0.1 target from the initial joints on: after n steps 1 - 0.9^n of a step in the target."""
    plan, _ = start(env)
    plan.wrist_tracks[:] = plan.wrist_tracks[:, :1]
    first = to_numpy(plan.robot.target)
    action = torch.cat([torch.zeros(NUM_ENVS, 6), torch.ones(NUM_ENVS, 1)], 1)
    for n in range(1, 12):
        env.step(action)
        goal = to_numpy(plan.robot.close) - first[:, 6:]
        np.testing.assert_allclose(to_numpy(plan.robot.target)[:, 6:] - first[:, 6:], (1 - 0.9**n) * goal, atol=1e-5)


# --- rewards --------------------------------------------------------------------------------------------------------


def test_reward_is_one_on_the_plan(env):
    """After one step things have hardly moved: each term of eq. 3 at its value on the plan, per second."""
    plan, _ = start(env)
    _, reward, *_ = env.step(zeros(env))
    assert plan.distance.reward.min() > 0.97
    # Tracking 1, weight 1; no fingertip touches: exp(-1/eps) = 0. Isaac Lab scales by the step of 1/60 s.
    np.testing.assert_allclose(to_numpy(reward) * 60, to_numpy(plan.distance.reward), atol=1e-5)


@APPLE
def test_reward_is_equation_3_of_what_is_measured(env):
    plan, observations = start(env)
    touching = []

    def check(step):
        error = np.linalg.norm(to_numpy(plan.keypoints) - to_numpy(plan.keypoint_targets), axis=-1).mean(-1)
        forces = to_numpy(env.scene["contact"].data.force_matrix_w.torch).reshape(NUM_ENVS, 4, 3)
        count = (np.linalg.norm(forces, axis=-1) > 1e-3).sum(-1)
        expected = np.exp(-20 * error) + 0.5 * np.where(count > 0, np.exp(-1 / np.maximum(count, 1)), 0)
        np.testing.assert_allclose(to_numpy(env.reward_buf) * 60, expected, atol=2e-4)
        touching.append(count)

    run(env, plan, observations, CLOSE, until=120, each=check)
    assert {0, 1, 2, 3, 4} >= set(np.unique(touching)) > {0, 3}


@APPLE
def test_contact_is_that_of_fingertips_with_the_object_and_none_before_the_close(env):
    """The apple lies on the counter all the time, which must not count; a tip that counts is at the apple."""
    plan, observations = start(env)
    tips = [env.scene["robot"].body_names.index(f"{f}_tip") for f in ("index", "middle", "ring", "thumb")]
    lengths = np.array([0.0267, 0.0267, 0.0267, 0.0423])  # capsules of 12 mm along z of the tips
    touched = np.zeros(NUM_ENVS, bool)

    def check(step):
        force = to_numpy(fingertip_forces(env))
        if step < 0.40 * plan.steps:
            assert (force == 0).all(), f"step {step}: a fingertip touches the apple with an open hand"
            return
        poses = to_numpy(env.scene["robot"].data.body_link_pose_w.torch[:, tips])
        apple = to_numpy(env.scene["apple"].data.root_link_pose_w.torch[:, None, :3])
        x, y, z, w = np.moveaxis(poses[..., 3:], -1, 0)
        along = np.stack([2 * (x * z + y * w), 2 * (y * z - x * w), 1 - 2 * (x * x + y * y)], -1)
        at = np.clip(((apple - poses[..., :3]) * along).sum(-1), 0, lengths)
        distance = np.linalg.norm(poses[..., :3] + at[..., None] * along - apple, axis=-1)
        assert distance[force > 0].max(initial=0) < 0.0375 + 0.012 + 0.003
        touched[:] |= (force > 0.1).sum(-1) >= 2

    run(env, plan, observations, CLOSE, until=130, each=check)
    assert touched.mean() > 0.9


# --- endings --------------------------------------------------------------------------------------------------------


def test_losing_the_plan_ends_an_episode_and_success_does_not(env):
    plan, _ = start(env, lenient=False)
    env.step(zeros(env))
    plan.succeeded[:] = True
    _, _, terminated, truncated, _ = env.step(zeros(env))
    assert not terminated.any() and not truncated.any()
    assert plan.succeeded.all() and (plan.metrics["success"] == 1).all()
    half = torch.arange(NUM_ENVS) % 2 == 0
    plan.keypoint_tracks[half, :, 0, 2] += 0.5  # the plan is elsewhere
    _, _, terminated, truncated, _ = env.step(zeros(env))
    assert torch.equal(terminated, half) and not truncated.any()
    assert (plan.step == torch.where(half, 0, 3)).all() and not plan.succeeded[half].any()


def test_nothing_ends_an_evaluation_before_its_time(env):
    plan, _ = start(env, lenient=True)
    plan.keypoint_tracks[:, 1:, 0, 2] += 0.5
    _, _, terminated, truncated, _ = env.step(zeros(env))
    assert not terminated.any() and not truncated.any() and plan.distance.exceeded.all()


def test_time_is_over_after_as_many_steps_as_the_plan_has(env, task):
    plan, observations = start(env)
    assert plan.steps == load_task(task).task.episode_steps
    run(env, plan, observations, zero_action)
    assert (plan.step == plan.steps - 1).all()
    _, _, terminated, truncated, _ = env.step(zeros(env))
    assert truncated.all() and not terminated.any() and (plan.step == 0).all()


def lost_with_a_keypoint_off(env) -> list[bool]:
    """Which episodes end where the apple's target is 5, 15 and 25 cm off in turn, and that of the board is not."""
    plan, _ = start(env, lenient=False)
    plan.keypoint_tracks[:, 1:, 0, 2] += torch.tensor([0.05, 0.15, 0.25]).repeat(NUM_ENVS)[:NUM_ENVS, None]
    _, _, terminated, *_ = env.step(zeros(env))
    return terminated.tolist()


@APPLE
def test_mean_forgives_one_lost_keypoint(env):
    """Of two: delta is 10 cm, and 15 cm are 7.5 cm in the mean. For ``any``, which does not: see the variants."""
    assert lost_with_a_keypoint_off(env) == ([False, False, True] * NUM_ENVS)[:NUM_ENVS]


@APPLE
def test_threshold_falls_linearly_to_one_half(env):
    plan = plan_of(env)
    steps = env.cfg.curriculum.threshold.params["steps"]
    for done, share in ((0, 1.0), (steps // 4, 0.875), (steps // 2, 0.75), (steps, 0.5), (3 * steps, 0.5)):
        env.common_step_counter = done
        env.reset()
        assert plan.distance.delta.item() == pytest.approx(0.10 * share, abs=1e-3)
    assert env.extras["log"]["Curriculum/threshold"] == pytest.approx(0.05)


# --- grasps ---------------------------------------------------------------------------------------------------------


def test_scripted_grasp_does_the_task_and_the_open_hand_does_not_move_the_apple(env, task):
    (closed, opened) = run_episodes(
        env, scripted_library(load_task(task), count=32, seed=21), {"close": CLOSE, "open": zero_action}
    )
    assert closed.success_rate >= 0.95
    if task == "move_apple":
        assert opened.success_rate == 0
        # Nothing is grasped: the apple stays behind, the board is where it is, so the mean is half of the way.
        assert opened.error[:, -1].min() > 0.10 and closed.error[:, -1].mean() < 0.03


@APPLE
def test_scripted_grasp_holds_under_wrist_noise(env):
    """Wrist hinges that shake lose the apple: with sigma 0.5 on the wrist actions 70 % of 64 envs must succeed."""
    library = scripted_library(load_task("move_apple"), count=NUM_ENVS, seed=3)
    (episodes,) = run_episodes(env, library, {"noisy": with_wrist_noise(CLOSE, sigma=0.5, seed=1)})
    print(f"scripted grasp under wrist noise on ovphysx: {episodes.success_rate:.0%}")
    assert episodes.success_rate >= 0.70


@pytest.mark.parametrize(("friction", "lifts"), [(2.0, True), (0.1, False)])
def test_friction_of_the_asset_is_what_the_engine_uses(simulation, tmp_path, friction, lifts):
    """The same hand with 0.1 instead of 2.0 on its links must drop a bottle with 0.1. It holds an apple like a cage."""

    def change(cfg):
        for asset, value in ((cfg.scene.robot, friction), (cfg.scene.bottle, min(friction, 1.0))):
            text = Path(asset.spawn.usd_path).read_text()
            original = "2" if asset is cfg.scene.robot else "1"
            for kind in ("static", "dynamic"):
                line = f"float physics:{kind}Friction = "
                assert text.count(line + original + "\n") == 1
                text = text.replace(line + original + "\n", f"{line}{value}\n")
            copy = tmp_path / asset.spawn.usd_path.rsplit("/", 1)[-1]
            copy.write_text(text)
            asset.spawn.usd_path = str(copy)

    env = simulation.env("move_bottle", num_envs=32, change=change)
    plan, observations = start(env)
    highest = torch.full((32,), -1.0)

    def lift(step):
        torch.maximum(highest, plan.keypoints[:, 0, 2], out=highest)

    run(env, plan, observations, CLOSE, until=168, each=lift)
    lifted = (highest > 1.0025 + 0.03).float().mean()  # 3 cm off the counter
    assert (lifted > 0.9) if lifts else (lifted == 0)


def test_friction_of_a_joint_slows_it_down_while_it_moves(simulation):
    """A door of I = 12 kg ((0.60^2 + 0.05^2) / 12 + 0.30^2 + 0.031^2) about its edge, at 1 rad/s against 5 N m.

    It turns by I w^2 / (2 M) = 0.145 rad and stops after I w / M = 0.29 s. A friction that only holds lets it swing on.
    """

    def change(cfg):
        (hinge,) = cfg.scene.fridge.actuators.values()
        hinge.damping, hinge.friction, hinge.dynamic_friction = 0.0, 5.0, 5.0

    env = simulation.env("open_fridge", num_envs=4, change=change)
    start(env)
    inertia = 12 * ((0.60**2 + 0.05**2) / 12 + 0.30**2 + 0.031**2)
    fridge = env.scene["fridge"]
    ids = torch.arange(4, dtype=torch.int32)
    fridge.write_joint_state_to_sim_index(
        position=torch.zeros(4, 1), velocity=torch.full((4, 1), -1.0), joint_ids=[0], env_ids=ids
    )
    for _ in range(30):  # half a second: the hand is still on its way
        env.step(zeros(env))
    np.testing.assert_allclose(to_numpy(fridge.data.joint_pos.torch), -inertia / (2 * 5.0), rtol=0.1)
    assert fridge.data.joint_vel.torch.abs().max() < 1e-3


# --- variants -------------------------------------------------------------------------------------------------------

VARIANT = (
    "presets=randomized",
    "env.observations.policy.future_plan.params.offsets=[0,5,10]",
    "env.actions.hand.fingers=each",
    "env.rewards.fingertip_contact.params.mode=force",
    "env.commands.plan.reduction=any",
)


@pytest.fixture
def variant_env(simulation):
    return simulation.env("move_apple", num_envs=NUM_ENVS, overrides=VARIANT)


def test_horizon_and_finger_actions_can_be_set(variant_env):
    """Three steps ahead instead of 15, each with 2 keypoints and the wrist; one action for each of four fingers."""
    assert term_dims(variant_env)["future_plan"] == (3 * 2 + 6) * 3
    assert variant_env.action_manager.total_action_dim == 6 + 4


def test_any_lost_keypoint_ends_an_episode_where_that_is_asked_for(variant_env):
    """15 cm of the one are more than delta, 10 cm, whatever the other does."""
    assert lost_with_a_keypoint_off(variant_env) == ([False, True, True] * NUM_ENVS)[:NUM_ENVS]


def test_each_finger_follows_its_own_action(variant_env):
    plan, _ = start(variant_env)
    plan.wrist_tracks[:] = plan.wrist_tracks[:, :1]
    finger = torch.arange(NUM_ENVS) % 4
    actions = torch.zeros(NUM_ENVS, 10)
    actions[torch.arange(NUM_ENVS), 6 + finger] = 1.0
    for _ in range(60):
        variant_env.step(actions)
    share = (plan.robot.target[:, 6:] - plan.robot.open) / (plan.robot.close - plan.robot.open)
    moves = (plan.robot.close - plan.robot.open).abs() > 0.01
    expected = (torch.arange(16) // 4 == finger[:, None]).float() * (1 - 0.9**60)
    torch.testing.assert_close(share[:, moves], expected[:, moves], atol=1e-4, rtol=0)


def test_gains_are_scaled_once_per_joint_and_env(variant_env):
    """Appendix C.4: stiffness and damping times U(0.3, 3)."""
    robot = plan_of(variant_env).robot
    nominal = np.array([2000.0] * 6 + [10.0] * 16), np.array([100.0] * 6 + [0.3] * 16)
    data = robot.asset.data
    for gains, value in zip((data.joint_stiffness, data.joint_damping), nominal, strict=True):
        factor = to_numpy(gains.torch[:, robot.joints]) / value
        assert factor.min() >= 0.3 - 1e-5 and factor.max() <= 3 + 1e-5
        assert factor.mean() == pytest.approx(1.65, abs=0.1) and len(np.unique(factor.round(6))) > 1000
        before = gains.torch.clone()
        variant_env.reset()
        assert torch.equal(gains.torch, before)


def test_noise_is_on_the_proprioception_only(variant_env):
    """Appendix C.4: N(0, 0.05^2) on everything observed of the robot and on the action average, at every step."""
    plan, observations = start(variant_env)
    seen, again = terms(variant_env, observations), terms(variant_env, variant_env.observation_manager.compute())
    robot = plan.robot
    truth = {"joint_positions": robot.joint_pos, "joint_velocities": robot.joint_vel, "wrist": robot.wrist}
    truth |= {"fingertip_poses": robot.fingertip_poses.flatten(1), "action_average": robot.target}
    for name, value in truth.items():
        noise = seen[name] - to_numpy(value)
        assert noise.std() == pytest.approx(0.05, rel=0.1) and abs(noise.mean()) < 0.01
        assert np.abs(np.corrcoef(noise.ravel(), (again[name] - to_numpy(value)).ravel())[0, 1]) < 0.2
    for name in ("keypoints", "initial_keypoints", "future_plan"):
        np.testing.assert_array_equal(seen[name], again[name])


def test_contact_by_force_sums_forces_up_to_one_newton(variant_env):
    """The paper's code: N is the sum over fingertips of the force [N], each clipped to 1."""
    plan, observations = start(variant_env)
    index = variant_env.reward_manager.active_terms.index("fingertip_contact")
    some = []

    def check(step):
        forces = to_numpy(variant_env.scene["contact"].data.force_matrix_w.torch).reshape(NUM_ENVS, 4, 3)
        total = np.minimum(np.linalg.norm(forces, axis=-1), 1).sum(-1)
        expected = 0.5 * np.exp(-1 / (total + 1e-6))
        np.testing.assert_allclose(to_numpy(variant_env.reward_manager._step_reward[:, index]), expected, atol=1e-4)
        some.append(total.max())

    run(variant_env, plan, observations, CLOSE, until=110, each=check)
    assert max(some) > 2


@PLIERS
def test_tips_on_either_half_of_a_tool_count(env):
    plan, observations = start(env)
    index = env.reward_manager.active_terms.index("fingertip_contact")
    on_left, on_right = np.zeros(4, bool), np.zeros(4, bool)

    def check(step):
        left, right = (
            np.linalg.norm(to_numpy(env.scene[name].data.force_matrix_w.torch)[:, 0], axis=-1) > 1e-3
            for name in ("contact", "contact_1")
        )
        count = (left | right).sum(-1)
        expected = 0.5 * np.where(count > 0, np.exp(-1 / np.maximum(count, 1)), 0)
        np.testing.assert_allclose(to_numpy(env.reward_manager._step_reward[:, index]), expected, atol=1e-4)
        on_left[left.any(0)], on_right[right.any(0)] = True, True

    run(env, plan, observations, CLOSE, until=120, each=check)
    assert on_left.any() and on_right.any() and not (on_left & on_right).all()


@APPLE
def test_physx_has_a_thread_for_each_core(env):
    """Not the eight of OvPhysX, whatever the machine."""
    assert ovphysx_manager.import_ovphysx().PhysXConfig().num_threads == len(os.sched_getaffinity(0))


# --- evaluation beside training -------------------------------------------------------------------------------------


def test_evaluation_takes_up_the_running_episodes_again(env):
    """As in training: in the middle of the grasp an evaluation runs, and the grasp goes on to its success."""
    plan, observations = start(env, lenient=False)
    library = plan.library
    run(env, plan, observations, CLOSE, until=111)
    names = ("keypoints", "keypoint_targets", "step", "plan_id", "succeeded")
    before = {name: getattr(plan, name).clone() for name in names}
    before |= {"joints": plan.robot.joint_pos.clone(), "targets": plan.robot.target.clone()}
    counters = env.common_step_counter, env.episode_length_buf.clone(), plan.lenient, plan.assigned.clone()
    other = scripted_library(load_task(plan.cfg.task), count=40, seed=4)
    (zero,) = run_episodes(env, other, {"zero action": zero_action})
    assert len(zero.success) == 40 and plan.library is library
    for name, was in before.items():
        now = {"joints": plan.robot.joint_pos, "targets": plan.robot.target}.get(name)
        now = getattr(plan, name) if now is None else now
        torch.testing.assert_close(now, was, atol=1e-5, rtol=0, msg=name)
    assert env.common_step_counter == counters[0] and torch.equal(env.episode_length_buf, counters[1])
    assert plan.lenient is counters[2] and torch.equal(plan.assigned, counters[3])
    run(env, plan, env.observation_manager.compute(), CLOSE)
    assert plan.succeeded.float().mean() >= 0.9


@APPLE
def test_results_are_those_of_their_plans_in_whatever_batches(env):
    """40 plans and two policies in 64 envs: two batches. Each result must stand beside its own plan."""
    library = scripted_library(load_task("move_apple"), count=40, seed=12)
    done = []
    closed, opened = run_episodes(
        env, library, {"close": CLOSE, "open": zero_action}, on_step=lambda d, n: done.append((d, n))
    )
    np.testing.assert_array_equal(closed.plan_id, np.arange(40))
    np.testing.assert_array_equal(opened.plan_id, np.arange(40))
    assert done[-1] == (200 + 199, 2 * 200) and len(closed.error) == len(opened.error) == 40
    # With an open hand the apple stays, so the final error of each plan is half of its own way to the board.
    way = np.array([np.linalg.norm(p.keypoints_e[-1, 0] - p.keypoints_e[0, 0]) / 2 for p in library.plans])
    still = np.abs(opened.error[:, -1] - way) < 0.005
    assert still.mean() > 0.8  # a hand that touches the apple may roll it
    assert np.corrcoef(opened.error[still, -1], way[still])[0, 1] > 0.95
    assert (closed.keypoint_error < 0.003).all()


@APPLE
def test_trials_repeat_each_plan(env):
    library = scripted_library(load_task("move_apple"), count=10, seed=12)
    (episodes,) = run_episodes(env, library, {"noisy": with_wrist_noise(CLOSE, sigma=1.0, seed=1)}, trials=6)
    np.testing.assert_array_equal(episodes.plan_id, np.tile(np.arange(10), 6))
    assert len(np.unique(episodes.error.mean(1))) == 60  # sampled anew each time


@APPLE
def test_checkpoint_of_another_observation_size_is_refused_with_both_sizes(env, tmp_path):
    """Of 100 numbers instead of 292: a checkpoint whose first layer and normalization are cut off."""
    path = tmp_path / "model.pt"
    make_runner(env, "move_apple", folder=None, seed=0, overrides=["presets=cpu"]).save(str(path))
    load_policies(env, "move_apple", path, seed=0, overrides=["presets=cpu"])  # as it is, it fits
    content = torch.load(path, weights_only=False)
    for part in ("actor_state_dict", "critic_state_dict"):
        content[part] = {name: w[..., :100] if w.shape[-1:] == (292,) else w for name, w in content[part].items()}
    torch.save(content, path)
    with pytest.raises(ScaffoldError) as caught:
        load_policies(env, "move_apple", path, seed=0, overrides=["presets=cpu"])
    assert f"checkpoint {path}: it does not fit this env, whose policy sees 292 numbers" in str(caught.value)
    assert "size mismatch" in str(caught.value) and "100]) from checkpoint" in str(caught.value)
    assert "same overrides as in training" in str(caught.value)


# --- the other tasks ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", OTHERS, indirect=True)
def test_other_tasks_begin_at_rest_and_the_scripted_grasp_does_them(env, task):
    """Things are where the USD files say, nothing falls or jumps, and a closing hand does what an open one does not."""
    plan, _ = start(env)
    env.step(zeros(env))
    for number in range(0, 32, 7):
        expected = body_poses(load_task(task), plan.library.plans[number].initial_state)
        for column, name in enumerate(plan._body_names):
            pose = to_numpy(plan.body_poses[number, column])
            np.testing.assert_allclose(pose[:3], expected[name][:3], atol=0.003, err_msg=name)
            assert abs(pose[3:] @ expected[name][3:]) > 0.9999, name
    library = scripted_library(load_task(task), count=16, seed=21)
    closed, opened = run_episodes(env, library, {"close": CLOSE, "open": zero_action})
    assert closed.success_rate >= 0.75 and opened.success_rate <= 0.25


@HAMMER
def test_swings_are_counted_on_through_an_evaluation(env):
    """In the middle of the third swing other episodes run in the same envs; the two swings before it are not lost."""
    plan, observations = start(env)
    run(env, plan, observations, CLOSE, until=250)
    before = {name: tensor.clone() for name, tensor in plan.success.running().items()}
    assert (before["success_0_count"] == 2).float().mean() > 0.5
    run_episodes(env, scripted_library(load_task("hammer"), count=4, seed=4), {"zero action": zero_action})
    for name, tensor in plan.success.running().items():
        assert torch.equal(tensor, before[name]), name
    run(env, plan, env.observation_manager.compute(), CLOSE)
    assert plan.succeeded.float().mean() > 0.75
