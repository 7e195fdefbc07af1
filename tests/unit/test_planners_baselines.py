"""Baseline planners: plans of other states, and goals without a way to them."""

import numpy as np
import pytest

from scaffoldlab.errors import ScaffoldError
from scaffoldlab.planners.baselines import GoalPlanner, PrerecordedPlanner
from scaffoldlab.planners.making import make_library, scripted_library
from scaffoldlab.planners.scripted import ScriptedPlanner
from scaffoldlab.specs.models import load_task


@pytest.fixture
def apple():
    return load_task("move_apple")


def test_prerecorded_plans_are_those_of_other_states_from_the_second_waypoint_on(apple):
    recorded = scripted_library(apple, count=3, seed=1)
    library = make_library(apple, PrerecordedPlanner(recorded), count=5, seed=2)
    fresh = scripted_library(apple, count=5, seed=2)
    for index, (plan, own) in enumerate(zip(library.plans, fresh.plans, strict=True)):
        other = recorded.plans[index % 3]
        np.testing.assert_array_equal(plan.keypoints_e[1:], other.keypoints_e[1:])
        np.testing.assert_array_equal(plan.wrist_e[1:, :3], other.wrist_e[1:, :3])
        np.testing.assert_array_equal(plan.keypoints_e[0], own.keypoints_e[0])
        np.testing.assert_array_equal(plan.initial_state["apple"], own.initial_state["apple"])
    assert library.header["planner"] == "prerecorded"


def test_prerecorded_plans_turn_the_hand_as_it_was_turned():
    """The fridge's door turns by 75 degrees, and the hand with it, from wherever it was at the start of that plan."""
    fridge = load_task("open_fridge")
    turning = ScriptedPlanner(fridge.task.oracle, orientation=True)
    recorded = make_library(fridge, turning, count=2, seed=1)
    library = make_library(fridge, PrerecordedPlanner(recorded), count=2, seed=2)
    for plan, other in zip(library.plans, recorded.plans, strict=True):
        assert np.degrees(plan.wrist_e[-1, 5] - other.wrist_e[0, 5]) == pytest.approx(-75)
        np.testing.assert_allclose(plan.wrist_e[1:], other.wrist_e[1:], atol=1e-12)
        np.testing.assert_array_equal(plan.wrist_e[0], plan.initial_state["hand"])
        assert (plan.initial_state["hand"] != other.initial_state["hand"]).any()


def test_prerecorded_plans_without_a_turn_leave_the_hand_as_it_is(apple):
    library = make_library(apple, PrerecordedPlanner(scripted_library(apple, count=2, seed=1)), count=2, seed=2)
    for plan in library.plans:
        np.testing.assert_array_equal(plan.wrist_e[:, 3:], [plan.initial_state["hand"][3:]] * 20)


def test_recorded_plans_of_another_length_are_refused(apple):
    recorded = scripted_library(apple, count=1, seed=1)
    with pytest.raises(ScaffoldError, match=r"have 20 waypoints and 5 are wanted. Give --waypoints 20"):
        make_library(apple, PrerecordedPlanner(recorded), count=1, seed=2, waypoint_count=5)


@pytest.mark.parametrize("task", ["move_apple", "move_bottle", "open_drawer", "open_fridge", "close_pliers"])
def test_goal_asks_for_the_end_at_once_and_leaves_the_hand_where_it_is(task):
    """Also where the way goes higher than the end: the apple is lifted over the board and put down."""
    composition = load_task(task)
    goal = make_library(composition, GoalPlanner(composition.task.oracle), count=20, seed=3)
    oracle = scripted_library(composition, count=20, seed=3)
    for plan, whole in zip(goal.plans, oracle.plans, strict=True):
        assert (plan.keypoints_e[1:] == whole.keypoints_e[-1]).all()
        assert (plan.wrist_e == plan.wrist_e[0]).all()
        np.testing.assert_array_equal(plan.keypoints_e[0], whole.keypoints_e[0])


@pytest.mark.parametrize(
    ("task", "moved"),
    [
        ("hammer", (0, 0, 0.16)),  # raised; the strike brings it back to where it was
        ("hammer_three_times", (0, 0, 0.14)),  # the strikes end 4 cm below the start
        ("sponge", (0, -0.40, 0)),  # wiped, before it is wiped 30 cm back
    ],
)
@pytest.mark.parametrize("waypoints", [None, 3])
def test_goal_of_a_motion_to_and_fro_is_where_it_turns(task, moved, waypoints):
    composition = load_task(task)
    goals = make_library(composition, GoalPlanner(composition.task.oracle), count=3, seed=3, waypoint_count=waypoints)
    for plan in goals.plans:
        asked = plan.keypoints_e[1:] - plan.keypoints_e[0]
        np.testing.assert_allclose(asked, np.broadcast_to(moved, asked.shape), atol=1e-12)
