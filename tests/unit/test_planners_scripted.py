"""The scripted oracle's stages: arcs, keypoints that meet, goals between keypoints."""

import numpy as np
import pytest

from scaffoldlab.geometry import matrix_from_rpy, pose_apply
from scaffoldlab.planners.base import PlanRequest
from scaffoldlab.planners.making import make_request
from scaffoldlab.planners.scripted import ScriptedPlanner, oracle_waypoints
from scaffoldlab.specs.initial_state import body_poses, sample_initial_state
from scaffoldlab.specs.models import OracleStage, load_task


def request(keypoints, hand) -> PlanRequest:
    names = tuple("abc"[: len(keypoints)])
    return PlanRequest(
        index=0, seed=0, task="any", instruction="", keypoint_names=names, activity="", steps=(), waypoint_count=2,
        hand_e=np.array(hand, float), keypoints=(), keypoints_e=np.array(keypoints, float), image=None,
    )  # fmt: skip


def waypoints(stage: dict, keypoints, hand=(0, 0, 1)):
    return oracle_waypoints([OracleStage.model_validate({"name": "any", **stage})], request(keypoints, hand))


def test_arc_turns_hand_and_carried_keypoints_about_its_centre_in_equal_angles():
    """About (1, 2): the hand a quarter turn from 1 m right of it, a keypoint from 2 m in front of it."""
    stage = {"waypoints": 2, "hand": {"arc": {"center": [1, 2], "angle_deg": 90}}, "carry": ["a"]}
    keypoints, hand = waypoints(stage, [[3, 2, 0.5], [9, 9, 9]], hand=(1, 1, 0.7))
    half = np.sqrt(0.5)
    np.testing.assert_allclose(hand, [[1, 1, 0.7], [1 + half, 2 - half, 0.7], [2, 2, 0.7]], atol=1e-12)
    np.testing.assert_allclose(
        keypoints[:, 0], [[3, 2, 0.5], [1 + 2 * half, 2 + 2 * half, 0.5], [1, 4, 0.5]], atol=1e-12
    )
    np.testing.assert_allclose(keypoints[:, 1], [[9, 9, 9]] * 3)


def test_gathered_keypoints_meet_half_way_and_the_hand_and_the_others_stay():
    stage = {"waypoints": 2, "gather": {"keypoints": ["a", "c"], "distance": 0.02}}
    keypoints, hand = waypoints(stage, [[0, 0, 0], [5, 5, 5], [0, 0.10, 0]])
    np.testing.assert_allclose(keypoints[:, 0, 1], [0, 0.02, 0.04])
    np.testing.assert_allclose(keypoints[:, 2, 1], [0.10, 0.08, 0.06])
    np.testing.assert_allclose(keypoints[:, 1], [[5, 5, 5]] * 3)
    np.testing.assert_allclose(hand, [[0, 0, 1]] * 3)


def test_fewer_waypoints_are_some_of_the_oracles_and_more_lie_on_its_way():
    """Twice as many do not stop and go: the hand is never faster, and moves wherever it moved."""
    composition = load_task("move_apple")
    planner = ScriptedPlanner(composition.task.oracle)
    usual, few, many = (
        planner.plan(make_request(composition, seed=0, index=0, waypoint_count=n)) for n in (None, 5, 39)
    )
    assert all((point == usual.hand_e).all(-1).any() for point in few.hand_e) and len(few.hand_e) == 5
    np.testing.assert_allclose(many.hand_e[::2], usual.hand_e, atol=1e-12)
    np.testing.assert_allclose(many.keypoints_e[1::2], (usual.keypoints_e[1:] + usual.keypoints_e[:-1]) / 2, atol=1e-12)


def test_goal_of_several_keypoints_is_the_middle_of_them():
    stage = {"waypoints": 1, "hand": {"to": ["a", "b"], "offset": [0, 0, 0.1]}}
    _, hand = waypoints(stage, [[0, 0, 0], [1, 2, 0], [7, 7, 7]])
    np.testing.assert_allclose(hand[-1], [0.5, 1, 0.1])


def test_planned_handle_of_the_fridge_is_where_the_door_takes_it():
    """Seven equal steps to 75 deg: at each of them the door, turned by that much, has the handle at the waypoint."""
    composition = load_task("open_fridge")
    stages = composition.task.oracle
    begin = sum(s.waypoints for s in stages[: [s.name for s in stages].index("pull")])
    keypoints, hand = oracle_waypoints(stages, make_request(composition, seed=0, index=0))
    (handle,) = composition.task.keypoints
    for step in range(8):
        poses = body_poses(composition, {"fridge": np.array([-np.radians(75 * step / 7)])})
        there = pose_apply(poses["fridge/door"], np.array(handle.point))
        np.testing.assert_allclose(keypoints[begin + step, 0], there, atol=1e-6)
        np.testing.assert_allclose(hand[begin + step], there, atol=1e-6)


def test_hand_that_turns_keeps_to_the_door_it_pulls():
    """Seen from the door the palm looks the same at every step; without the option it keeps its orientation."""
    composition = load_task("open_fridge")
    stages, asked = composition.task.oracle, make_request(composition, seed=0, index=0)
    begin = sum(s.waypoints for s in stages[: [s.name for s in stages].index("pull")])
    turning, stiff = ScriptedPlanner(stages, orientation=True).plan(asked), ScriptedPlanner(stages).plan(asked)
    assert turning.wrist_rpy is not None and stiff.wrist_rpy is None
    np.testing.assert_array_equal(turning.hand_e, stiff.hand_e)
    np.testing.assert_array_equal(turning.wrist_rpy[: begin + 1], np.tile(asked.hand_rpy, (begin + 1, 1)))
    at_first = matrix_from_rpy(asked.hand_rpy)
    for step in range(8):
        door = matrix_from_rpy(np.array([0, 0, -np.radians(75 * step / 7)]))
        np.testing.assert_allclose(matrix_from_rpy(turning.wrist_rpy[begin + step]), door @ at_first, atol=1e-9)
    np.testing.assert_array_equal(turning.wrist_rpy[begin + 7 :], np.tile(turning.wrist_rpy[-1], (4, 1)))


@pytest.mark.parametrize("task", ["close_pliers", "close_scissors"])
def test_planned_handles_meet_where_the_closed_tool_has_them(task):
    composition = load_task(task)
    keypoints, _ = oracle_waypoints(composition.task.oracle, make_request(composition, seed=0, index=0))
    tool = composition.task.keypoints[0].body.split("/")[0]
    state = sample_initial_state(composition, seed=0, index=0)[tool]
    state[7] = 0.0
    poses = body_poses(composition, {tool: state})
    closed = [pose_apply(poses[k.body], np.array(k.point)) for k in composition.task.keypoints]
    planned, truth = (np.linalg.norm(np.subtract(*pair)) for pair in (keypoints[-1], closed))
    assert planned == pytest.approx(truth, abs=1e-4)
