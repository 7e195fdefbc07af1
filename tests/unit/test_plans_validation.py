"""Validation of waypoints: good plans pass, and each mistake is found and told."""

from dataclasses import replace

import numpy as np
import pytest

from scaffoldlab.errors import ScaffoldError
from scaffoldlab.geometry import matrix_from_rpy
from scaffoldlab.keypoints.keypoint import Keypoint
from scaffoldlab.planners.base import PlanRequest, Waypoints
from scaffoldlab.plans.validation import PlanLimits, collision_reasons, validate_waypoints
from scaffoldlab.specs.bodies import SolidBox

APPLE, BOARD, HAND = np.array((0.1, 0.2, 0.94)), np.array((0.0, -0.2, 0.91)), np.array((-0.1, 0.1, 1.15))
LIMITS = PlanLimits(duration_s=5.0, workspace_e=((-0.45, -0.65, 0.85), (0.45, 0.65, 1.6)), height_min=0.9)


def make_request(bodies=("apple", "cutting_board"), names=("apple", "board"), starts=(APPLE, BOARD), n=20):
    return PlanRequest(
        index=0,
        seed=0,
        task="move_apple",
        instruction="Move the apple to the board.",
        keypoint_names=names,
        activity="move an apple",
        steps=("Move it.",),
        waypoint_count=n,
        hand_e=HAND,
        keypoints=tuple(Keypoint(name, body, (0, 0, 0)) for name, body in zip(names, bodies, strict=True)),
        keypoints_e=np.stack(starts),
    )


def make_waypoints():
    """Hand to the apple in 8 waypoints, then both over the board in 12; the board rests."""
    lifted = BOARD + np.array((0, 0, 0.04))
    hand = np.concatenate((np.linspace(HAND, APPLE, 8), np.linspace(APPLE, lifted, 12)))
    apple = np.concatenate((np.tile(APPLE, (8, 1)), np.linspace(APPLE, lifted, 12)))
    return Waypoints(
        keypoints_e=np.stack((apple, np.tile(BOARD, (20, 1))), 1), hand_e=hand, located_e=np.stack((APPLE, BOARD))
    )


def flipped(waypoints, matrix):
    """The plan of a planner that starts right but moves along mixed-up axes."""

    def flip(points):
        return points[0] + (points - points[0]) @ np.asarray(matrix, float).T

    return replace(waypoints, keypoints_e=flip(waypoints.keypoints_e), hand_e=flip(waypoints.hand_e))


def only(reasons):
    assert len(reasons) == 1, reasons
    return reasons[0]


def test_good_plan_has_no_reasons():
    assert validate_waypoints(make_request(), make_waypoints(), LIMITS) == []


def test_rounding_to_centimetres_is_no_mistake():
    good = make_waypoints()
    rounded = replace(good, keypoints_e=good.keypoints_e.round(2), hand_e=good.hand_e.round(2))
    rounded.keypoints_e[1, 0] -= np.array((0, 0, 0.01))
    assert validate_waypoints(make_request(), rounded, LIMITS) == []


@pytest.mark.parametrize("count", [0, 1, 19, 21])
def test_wrong_count(count):
    good = make_waypoints()
    short = replace(
        good, keypoints_e=np.resize(good.keypoints_e, (count, 2, 3)), hand_e=np.resize(good.hand_e, (count, 3))
    )
    assert validate_waypoints(make_request(), short, LIMITS) == [
        f"keypoint waypoints ('apple', 'board'): got {count}; allowed: exactly 20.",
        f"hand waypoints: got {count}; allowed: exactly 20.",
    ]


def test_wrong_shape():
    wrong = replace(make_waypoints(), keypoints_e=np.zeros((20, 1, 3)), located_e=np.zeros((2, 2)))
    assert validate_waypoints(make_request(), wrong, LIMITS) == [
        "keypoint waypoints ('apple', 'board'): got an array of shape (20, 1, 3); allowed: (20, 2, 3), "
        "the last axis being x, y, z.",
        "located keypoints: got an array of shape (2, 2); allowed: (2, 3), the last axis being x, y, z.",
    ]


def test_numbers_that_are_not_finite():
    wrong = make_waypoints()
    wrong.keypoints_e[4, 1, 2] = np.nan
    wrong.hand_e[7, 0] = -np.inf
    wrong.located_e[0, 1] = np.inf
    assert validate_waypoints(make_request(), wrong, LIMITS) == [
        "waypoint 4, 'board': z is nan; allowed: finite numbers of metres.",
        "waypoint 7, 'hand': x is -inf; allowed: finite numbers of metres.",
        "located keypoint 'apple': y is inf; allowed: finite numbers of metres.",
    ]


def test_start_off_the_initial_position():
    wrong = make_waypoints()
    wrong.keypoints_e[:, 1] += np.array((0, 0.03, 0))
    assert only(validate_waypoints(make_request(), wrong, LIMITS)) == (
        "waypoint 0, 'board': starts at (0.00, -0.17, 0.91), 0.03 m from its initial position (0.00, -0.20, 0.91); "
        "allowed: 0.02 m."
    )


def test_start_is_compared_with_what_the_planner_saw_not_with_the_truth():
    request = replace(make_request(), keypoints_e=np.stack((APPLE, BOARD)) + 0.1)
    assert validate_waypoints(request, make_waypoints(), LIMITS) == []


def test_positions_are_told_relative_to_the_origin_of_the_prompt():
    wrong = make_waypoints()
    wrong.keypoints_e[:, 1] += np.array((0, 0.03, 0))
    reason = only(validate_waypoints(make_request(), wrong, LIMITS, origin_e=APPLE))
    assert "starts at (-0.10, -0.37, -0.03), 0.03 m from its initial position (-0.10, -0.40, -0.03)" in reason


def test_speed_names_the_fastest_interval():
    wrong = make_waypoints()
    wrong.hand_e[-3:] += np.array((0, 0, 0.5))
    reason = only(validate_waypoints(make_request(), wrong, LIMITS))
    assert reason.startswith("waypoints 16 to 17, the hand: moves 0.5")
    assert reason.endswith("m/s; allowed: 1.50 m/s, 0.39 m per waypoint.")  # 1.5 m/s * 5 s / 19


def test_speed_depends_on_the_duration():
    assert validate_waypoints(make_request(), make_waypoints(), replace(LIMITS, duration_s=0.2)) != []


def test_rigid_pair_may_not_stretch():
    request = make_request(bodies=("hammer", "hammer"), names=("handle", "head"))
    assert only(validate_waypoints(request, make_waypoints(), LIMITS)) == (
        "waypoint 19, 'handle' and 'head': 0.04 m apart, but 0.41 m at waypoint 0, and both are on one rigid object; "
        "allowed: a change of 0.03 m."
    )


def test_rigid_pair_may_turn():
    angle = np.linspace(0, np.pi / 2, 20)[:, None]
    handle = np.tile(APPLE, (20, 1))
    head = handle + 0.2 * np.concatenate((np.cos(angle), np.zeros_like(angle), np.sin(angle)), -1)
    request = make_request(bodies=("hammer", "hammer"), names=("handle", "head"), starts=(handle[0], head[0]))
    turning = replace(
        make_waypoints(),
        keypoints_e=np.stack((handle, head), 1),
        located_e=np.stack((handle[0], head[0])),
        hand_e=np.concatenate((np.linspace(HAND, head[9], 10), head[10:])),
    )
    assert validate_waypoints(request, turning, LIMITS) == []


def test_below_the_support_names_the_deepest_waypoint():
    wrong = make_waypoints()
    wrong.hand_e[5:8, 2] = (0.87, 0.86, 0.87)
    assert only(validate_waypoints(make_request(), wrong, LIMITS)) == (
        "waypoint 6, the hand: z is 0.86 m, below what things stand on; allowed: 0.88 m or more. z points up."
    )
    assert validate_waypoints(make_request(), wrong, replace(LIMITS, height_min=None)) == []


def test_keypoint_that_starts_below_the_support_may_stay_there():
    low = BOARD - np.array((0, 0, 0.2))
    good = make_waypoints()
    good.keypoints_e[:, 1] = low
    good = replace(good, located_e=np.stack((APPLE, low)))
    assert validate_waypoints(make_request(starts=(APPLE, low)), good, LIMITS) == []


def test_out_of_reach_names_the_axis_and_its_bounds():
    far = replace(make_waypoints(), hand_e=make_waypoints().hand_e.copy())
    far.hand_e[10:, 0] = np.linspace(0.1, 0.62, 10)
    assert only(validate_waypoints(make_request(), far, LIMITS)) == (
        "waypoint 19, the hand: (0.62, -0.20, 0.95) is out of reach; allowed: x from -0.45 to 0.45 m."
    )


def test_target_at_rest_may_be_out_of_reach():
    far = BOARD + np.array((0, -0.6, 0))
    good = make_waypoints()
    good.keypoints_e[:, 1] = far
    good = replace(good, located_e=np.stack((APPLE, far)))
    assert validate_waypoints(make_request(starts=(APPLE, far)), good, LIMITS) == []


@pytest.mark.parametrize(
    ("how", "matrix"),
    [
        ("mirrored in x", np.diag((-1, 1, 1))),
        ("mirrored in y", np.diag((1, -1, 1))),
        ("mirrored in x and y", np.diag((-1, -1, 1))),
        ("with x and y swapped", [[0, 1, 0], [1, 0, 0], [0, 0, 1]]),
    ],
)
def test_hand_that_misses_along_mixed_up_axes(how, matrix):
    """The hand has to go 0.3 m forward and 0.15 m to the left, along wrong axes it misses by 0.2 m and more."""
    apple = HAND + np.array((0.3, 0.15, -0.2))
    hand = np.concatenate((np.linspace(HAND, apple, 10), np.linspace(apple, apple + np.array((0, 0, 0.2)), 10)))
    good = Waypoints(
        keypoints_e=np.concatenate((np.tile(apple, (10, 1)), hand[10:]))[:, None], hand_e=hand, located_e=apple[None]
    )
    request, limits = make_request(bodies=("apple",), names=("apple",), starts=(apple,)), PlanLimits()
    assert validate_waypoints(request, good, limits) == []
    reason = only(validate_waypoints(request, flipped(good, matrix), limits))
    assert reason.startswith("all waypoints, the hand: comes no nearer than 0.")
    assert f"The same motion {how} would come within 0.0" in reason
    assert "to 'apple', which moves; allowed: 0.10 m" in reason


def test_y_up_plan_is_called_a_swap_of_y_and_z():
    apple = HAND + np.array((0.0, 0.3, 0.0))
    hand = np.concatenate((np.linspace(HAND, apple, 10), np.linspace(apple, apple + np.array((0, 0, 0.2)), 10)))
    good = Waypoints(
        keypoints_e=np.concatenate((np.tile(apple, (10, 1)), hand[10:]))[:, None], hand_e=hand, located_e=apple[None]
    )
    request = make_request(bodies=("apple",), names=("apple",), starts=(apple,))
    reason = only(validate_waypoints(request, flipped(good, [[1, 0, 0], [0, 0, 1], [0, 1, 0]]), PlanLimits()))
    assert "with y and z swapped" in reason


def test_hand_that_misses_for_no_reason_of_axes_is_not_called_a_flip():
    lost = make_waypoints()
    lost = replace(lost, hand_e=HAND + 0 * lost.hand_e)
    assert validate_waypoints(make_request(), lost, LIMITS) == []


def test_hand_need_only_touch_one_keypoint_that_moves():
    """A hammer's head swings 0.3 m from the hand that holds its handle."""
    good = make_waypoints()
    head = good.keypoints_e[:, 0] + np.array((0.3, 0, 0))
    good = replace(good, keypoints_e=np.stack((good.keypoints_e[:, 0], head), 1), located_e=np.stack((APPLE, head[0])))
    request = make_request(bodies=("hammer", "hammer"), names=("handle", "head"), starts=(APPLE, head[0]))
    assert validate_waypoints(request, good, LIMITS) == []


def away_from_the_board(bodies):
    good = make_waypoints()
    keypoints, hand = good.keypoints_e.copy(), good.hand_e.copy()
    keypoints[8:, 0] = APPLE + (keypoints[8:, 0] - APPLE) * (1, -1, 1)
    hand[8:] = keypoints[8:, 0]
    return validate_waypoints(make_request(bodies), replace(good, keypoints_e=keypoints, hand_e=hand), LIMITS)


def test_object_carried_away_from_its_target_along_a_mirrored_axis():
    assert only(away_from_the_board(("apple", "cutting_board"))) == (
        "waypoint 19, 'apple': ends 0.80 m from 'board' over ground, further than the 0.41 m at waypoint 0. The same "
        "motion mirrored in y would end within 0.00 m: the axes look mixed up. x is forward, y is left, z is up."
    )


def test_drawer_may_leave_its_own_cabinet():
    assert away_from_the_board(("cabinet/drawer", "cabinet/frame")) == []


def test_object_may_stay_away_from_what_is_no_target():
    good = make_waypoints()
    good.keypoints_e[8:, 0] = good.hand_e[8:] = np.linspace(APPLE, APPLE + np.array((-0.3, 0, 0)), 12)
    assert validate_waypoints(make_request(), good, LIMITS) == []


def test_all_mistakes_are_told_at_once():
    wrong = make_waypoints()
    wrong.hand_e[10] = (2, 0, 0)
    wrong.keypoints_e[:, 1] += np.array((0, 0.03, 0))
    reasons = validate_waypoints(make_request(), wrong, LIMITS)
    assert [key for key in ("starts", "m/s", "below", "reach") if any(key in reason for reason in reasons)] == [
        "starts",
        "m/s",
        "below",
        "reach",
    ]


# --- orientation ----------------------------------------------------------------------------------------------------


def turned(*yaws_deg, count=20):
    """The good plan with the hand turned about z, evenly from one yaw to the next."""
    yaw = np.radians(np.interp(np.linspace(0, len(yaws_deg) - 1, count), range(len(yaws_deg)), yaws_deg))
    return replace(make_waypoints(), wrist_rpy=np.column_stack((np.zeros((count, 2)), yaw)))


def test_slow_turn_is_no_mistake():
    assert validate_waypoints(make_request(), turned(0, 90, 360), LIMITS) == []


def test_fast_turn_is_told():
    """5 s over 19 intervals are 0.263 s each; at 3 rad/s that is 45 degrees."""
    wrong = turned(0)
    wrong.wrist_rpy[7:, 1] = np.radians(80)
    assert only(validate_waypoints(make_request(), wrong, LIMITS)) == (
        "waypoints 6 to 7, the hand: turns by 80 deg in 0.26 s; allowed: 45 deg per waypoint."
    )


def test_turn_that_does_not_begin_as_the_hand_is_held_is_told():
    request = replace(make_request(), hand_rpy=np.radians((0, 0, -30)))
    reason = only(validate_waypoints(request, turned(0), LIMITS))
    assert reason.startswith(
        "waypoint 0, the hand: it is turned by 30 deg from its initial orientation; allowed: 6 deg"
    )


def test_orientation_of_another_shape_and_not_finite_is_told():
    assert "hand orientations: got 5; allowed: exactly 20." in validate_waypoints(
        make_request(), turned(0, count=5), LIMITS
    )
    wrong = turned(0)
    wrong.wrist_rpy[3, 2] = np.nan
    assert "orientation" in only(validate_waypoints(make_request(), wrong, LIMITS))


# --- collisions -----------------------------------------------------------------------------------------------------

COUNTER = SolidBox(
    body="counter", center_e=np.array((0, 0, 0.45)), rotation_eb=np.eye(3), half=np.array((0.4, 0.7, 0.45))
)


def way(*points):
    return np.array(points, float)


def test_way_above_the_counter_is_free_and_one_through_it_is_told():
    assert collision_reasons(way((0, 0, 1.1), (0.2, 0, 0.9), (0.3, 0, 1.1)), [COUNTER]) == []
    assert collision_reasons(
        way((0, 0, 1.1), (0.2, 0, 0.8), (0.3, 0, 1.1)), [COUNTER], origin_e=np.array((0, 0, 0.9))
    ) == [
        "waypoints 1 to 2, the hand: at (0.20, 0.00, -0.10) it is 0.10 m inside 'counter', which is solid; "
        "allowed: 0.01 m. Move around it or above it."
    ]


def test_wall_between_two_waypoints_is_found():
    """Both ends are free; a quarter turn about z makes the thin axis x of the wall the y of the env."""
    wall = SolidBox(
        body="wall", center_e=np.array((0, 0.3, 1)), rotation_eb=matrix_from_rpy(np.array((0, 0, np.pi / 2))),
        half=np.array((0.02, 1, 1)),
    )  # fmt: skip
    across = only(collision_reasons(way((0, 0, 1), (0, 0.6, 1)), [wall]))
    assert "waypoints 0 to 1" in across and "0.02 m inside 'wall'" in across
    assert collision_reasons(way((0, 0, 1), (0.5, 0.25, 1)), [wall]) == []


def test_solid_that_the_hand_starts_in_is_left_out():
    assert collision_reasons(way((0, 0, 0.5), (0, 0, 1.2)), [COUNTER]) == []


@pytest.mark.parametrize(
    "wrong", [{"speed_max": 0}, {"duration_s": -1}, {"near": float("nan")}, {"workspace_e": ((1, 0, 0), (0, 1, 1))}]
)
def test_limits_refuse_what_no_plan_could_meet(wrong):
    with pytest.raises(ScaffoldError, match=f"plan limits: {next(iter(wrong))} is"):
        PlanLimits(**wrong)
