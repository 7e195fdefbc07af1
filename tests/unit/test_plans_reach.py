"""The arm's reach in plans: its steps against those of the torch arm, what it refuses and what it lets through."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from allegro import matrix_of
from scaffoldlab.deployment.loop import RobotHand
from scaffoldlab.errors import ScaffoldError
from scaffoldlab.geometry import matrix_from_rpy
from scaffoldlab.planners.base import Planner, Waypoints
from scaffoldlab.planners.making import make_plan, make_request, plan_check, split_seed
from scaffoldlab.planners.scripted import ScriptedPlanner
from scaffoldlab.plans.reach import ArmReach
from scaffoldlab.plans.validation import reach_reasons
from scaffoldlab.specs.bodies import solid_boxes
from scaffoldlab.specs.initial_state import body_poses, sample_initial_state
from scaffoldlab.specs.models import load_task
from scaffoldlab.specs.paths import list_named
from scaffoldlab.usd.reader import collider_points

ARM_TASKS = [name for name in list_named("task") if load_task(name).robot.arm]
SHOULDER_E = np.array((-0.85, 0, 0.75 + 0.36))  # of the iiwa above its base


@pytest.fixture(scope="module")
def apple():
    return load_task("move_apple_arm")


@pytest.fixture(scope="module")
def arm(apple):
    return ArmReach(apple)


def way(composition, *points, **changes) -> tuple:
    """A request and an answer whose hand goes from where it is to these points [m]; the keypoints rest."""
    request = replace(make_request(composition, seed=0, index=0), waypoint_count=len(points) + 1)
    hand_e = np.array([request.hand_e, *points])
    keypoints_e = np.repeat(request.keypoints_e[None], len(hand_e), 0)
    return request, Waypoints(keypoints_e=keypoints_e, hand_e=hand_e, located_e=request.keypoints_e, **changes)


def test_the_arm_s_tasks_are_known():
    assert {"move_apple_arm", "place_bottle_arm", "slide_box_arm", "hammer_three_times_arm"} <= set(ARM_TASKS)


@pytest.mark.parametrize("task", ["move_apple_arm", "place_bottle_arm"])
def test_step_is_that_of_the_torch_arm(task):
    """On random postures and targets, some of them below the table; two tasks: other bases, hand points and tables."""
    composition, rng = load_task(task), np.random.default_rng(0)
    arm, hand = ArmReach(composition), RobotHand(composition)
    for _ in range(20):
        joints, rpy = rng.uniform(-1.2, 1.2, 7), rng.uniform(-0.7, 0.7, 3)
        point_e = rng.uniform((-0.5, -0.6, 0.5), (0.3, 0.6, 1.5))
        tensors = (torch.tensor(a[None], dtype=torch.float32) for a in (joints, np.r_[point_e, rpy]))
        expected = hand.arm.step(*tensors, hand.center)[0].numpy()
        got = arm.step(joints, *arm.error(joints, point_e, matrix_from_rpy(rpy)))
        np.testing.assert_allclose(got, expected, atol=5e-4)


def test_points_of_the_workspace_are_refused_where_the_torch_arm_stays_away(apple, arm):
    """60 of them with the palm as at the start; the torch arm takes 80 steps from its rest."""
    hand, rng = RobotHand(apple), np.random.default_rng(0)
    points = rng.uniform(*apple.scene.workspace, (60, 3)).clip(min=(-9, -9, apple.scene.table_height))
    request, _ = way(apple, points[0])
    wrist = torch.tensor(np.c_[points, np.tile(request.hand_rpy, (60, 1))], dtype=torch.float32)
    joints = torch.tensor([apple.robot.arm.rest]).repeat(60, 1)
    for _ in range(80):
        joints += (hand.arm.step(joints, wrist, hand.center) - joints).clamp(-0.2, 0.2)
    off = (hand.arm.wrist(joints, hand.center)[:, :3] - wrist[:, :3]).norm(dim=-1).numpy()
    refused = np.array([bool(reach_reasons(*way(apple, point), arm)) for point in points])
    sure = (off < 0.01) | (off > 0.03)
    assert sure.sum() > 50 and refused[sure].sum() > 20 and (~refused[sure]).sum() > 20
    np.testing.assert_array_equal(refused[sure], off[sure] > 0.02)


@pytest.mark.parametrize("task", ARM_TASKS)
def test_arm_follows_the_oracle_from_every_state_of_the_test_split(task):
    composition = load_task(task)
    check, oracle = plan_check(composition), ScriptedPlanner(composition.task.oracle)
    for index in range(100):
        request = make_request(composition, seed=split_seed(task, "test"), index=index)
        assert check(request, oracle.plan(request)) == []


def test_first_waypoint_out_of_reach_is_told_relative_to_the_first_keypoint(apple):
    """The hand ends 1.44 m from the shoulder, in the workspace; the arm with the palm down reaches about 1.1 m."""
    far = SHOULDER_E + 1.44 * np.array((0.88, 0.47, -0.06)) / np.linalg.norm((0.88, 0.47, -0.06))
    request, waypoints = way(apple, (0, 0.1, 1.2), (0.1, 0.3, 1.25), far, far)
    reason = next(r for r in plan_check(apple)(request, waypoints) if "reach of the arm" in r)
    x, y, z = far - request.keypoints_e[0]
    assert reason.startswith(f"waypoint 3, the hand: ({x:.2f}, {y:.2f}, {z:.2f}) is out of reach of the arm")
    bx, by, bz = np.array((-0.85, 0, 0.75)) - request.keypoints_e[0]
    assert f"whose base is at ({bx:.2f}, {by:.2f}, {bz:.2f})" in reason
    assert reason.endswith("allowed: 0.02 m and 6 deg.")
    off = float(reason.split(" m off")[0].split()[-1])
    assert 0.25 < off < 0.45


def test_floating_hand_goes_anywhere_in_the_workspace():
    composition = load_task("move_apple")
    request, waypoints = way(composition, (0.2, 0.3, 1.2), (0.44, 0.6, 1.2))
    assert plan_check(composition)(request, waypoints) == []


def test_hand_that_cannot_turn_as_asked_is_told_the_angle(apple, arm):
    """At the edge of the arm's reach its hand cannot face back to the base."""
    point = np.array((0.15, 0.0, 1.1))
    assert reach_reasons(*way(apple, point), arm) == []
    request = way(apple, point)[0]
    back = np.array([request.hand_rpy, (0, np.pi / 2, 0)])
    reason = reach_reasons(*way(apple, point, wrist_rpy=back), arm)[0]
    assert reason.startswith("waypoint 1, the hand:") and " deg; allowed" in reason


def test_waypoint_below_the_table_is_the_one_above_it(apple, arm):
    """The arm keeps its target above the table: the workspace, not the reach, says how far below it may be."""
    below, at = (list(arm.follow([(np.array((0, 0, z)), np.eye(3))], distance=1e-3, angle=1e-2)) for z in (0.5, 0.9))
    assert below[0][1] < 1e-3
    np.testing.assert_allclose(below[0][0], at[0][0])


def test_wrong_shapes_and_numbers_are_left_to_the_validation(apple, arm):
    request, waypoints = way(apple, (0, 0, 1.2))
    for hand_e in (waypoints.hand_e[:1], waypoints.hand_e[:, :2], waypoints.hand_e * np.nan):
        assert reach_reasons(request, replace(waypoints, hand_e=hand_e), arm) == []
    assert reach_reasons(request, replace(waypoints, wrist_rpy=np.zeros((5, 3))), arm) == []


@pytest.mark.parametrize("checked", [True, False])
def test_plan_out_of_reach_is_made_by_nobody_but_a_baseline(apple, checked):
    request, waypoints = way(apple, (0.1, 0.2, 1.2), (0.25, 0.4, 1.2), (0.44, 0.6, 1.2))

    class Stretching(Planner):
        name, needs_image = "stretching", False

        def plan(self, request):
            return waypoints

    Stretching.checked = checked
    if not checked:
        assert make_plan(apple, Stretching(), request).wrist_e[-1, 0] == 0.44
        return
    with pytest.raises(ScaffoldError, match=r"plan 0: waypoint \d, the hand: .* out of reach of the arm"):
        make_plan(apple, Stretching(), request)


@pytest.mark.parametrize("task", ARM_TASKS)
def test_wrist_target_of_an_arm_stays_above_the_top_that_things_stand_on(task):
    """By the colliders: what is static has a top there, and things that move lie on it or on something thin upon it."""
    composition, state = load_task(task), sample_initial_state(load_task(task), seed=0, index=0)
    height, poses = composition.scene.table_height, body_poses(composition, state)
    tops = {b.body: b.center_e[2] + b.half[2] for b in solid_boxes(composition, poses)}
    assert min(tops.values()) == pytest.approx(height, abs=1e-6)
    for asset in composition.scene.assets:
        if asset.kind == "rigid":
            rotation, points = matrix_of(poses[asset.name][3:]), collider_points(composition.usd(asset.usd))
            assert (points @ rotation.T)[:, 2].min() + poses[asset.name][2] == pytest.approx(height, abs=5e-3)
