"""Baseline planners: plans of other states, and goals without a way to them."""

import numpy as np
import pytest

from scaffoldlab.errors import ScaffoldError
from scaffoldlab.planners.baselines import GoalPlanner, PrerecordedPlanner
from scaffoldlab.planners.making import make_library, scripted_library
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


def test_recorded_plans_of_another_length_are_refused(apple):
    recorded = scripted_library(apple, count=1, seed=1)
    with pytest.raises(ScaffoldError, match=r"have 20 waypoints and 5 are wanted. Give --waypoints 20"):
        make_library(apple, PrerecordedPlanner(recorded), count=1, seed=2, waypoint_count=5)


def test_goal_asks_for_the_end_at_once_and_leaves_the_hand_where_it_is(apple):
    goal = make_library(apple, GoalPlanner(apple.task.oracle), count=2, seed=3)
    oracle = scripted_library(apple, count=2, seed=3)
    for plan, whole in zip(goal.plans, oracle.plans, strict=True):
        assert (plan.keypoints_e[1:] == whole.keypoints_e[-1]).all()
        assert (plan.wrist_e == plan.wrist_e[0]).all()
        np.testing.assert_array_equal(plan.keypoints_e[0], whole.keypoints_e[0])
