"""Initial states: the same for a seed and number, in range, and with their bodies where a person computes them."""

import numpy as np
import pytest

from conftest import ROOT
from scaffoldlab.planners.making import make_request
from scaffoldlab.specs.initial_state import body_poses, sample_initial_state
from scaffoldlab.specs.models import load_task

TASKS = sorted(path.parent.name for path in (ROOT / "tasks").glob("*/task.yaml"))
HALF = np.sqrt(0.5)


@pytest.mark.parametrize("task", TASKS)
def test_state_depends_on_seed_and_number_only(task):
    composition = load_task(task)
    forward = {i: sample_initial_state(composition, seed=3, index=i) for i in range(8)}
    backward = {i: sample_initial_state(composition, seed=3, index=i) for i in reversed(range(8))}
    for index, state in forward.items():
        assert state.keys() == backward[index].keys()
        for name in state:
            np.testing.assert_array_equal(state[name], backward[index][name])


def test_state_of_a_seed_and_number_never_changes():
    """Numbers of NumPy's PCG64 seeded with (seed, index), drawn hand first: a published seed must stay reproducible."""
    state = sample_initial_state(load_task("move_apple"), seed=0, index=0)
    unit = np.random.Generator(np.random.PCG64(np.random.SeedSequence((0, 0)))).random(12)
    hand = load_task("move_apple").task.initial_state.hand
    for value, u, (low, high) in zip(state["hand"][:3], unit, (hand.x, hand.y, hand.z), strict=False):
        assert value == pytest.approx(low + u * (high - low), abs=1e-12)
    assert state["apple"][0] == pytest.approx(-0.05 + 0.1 * unit[6], abs=1e-12)


def test_seeds_and_numbers_give_different_states():
    composition = load_task("move_apple")
    hands = [sample_initial_state(composition, seed=s, index=i)["hand"][:3] for s in range(5) for i in range(20)]
    assert len(np.unique(np.round(hands, 9), axis=0)) == 100


@pytest.mark.parametrize("task", TASKS)
def test_states_fill_their_ranges_and_stay_in_them(task):
    composition = load_task(task)
    spec = composition.task.initial_state
    states = [sample_initial_state(composition, seed=11, index=i) for i in range(300)]
    hand = np.array([state["hand"] for state in states])
    degrees = np.degrees(hand[:, 3:])
    columns = [(hand[:, 0], spec.hand.x), (hand[:, 1], spec.hand.y), (hand[:, 2], spec.hand.z)]
    columns += [(degrees[:, 0], spec.hand.roll_deg), (degrees[:, 1], spec.hand.pitch_deg)]
    columns += [(degrees[:, 2], spec.hand.yaw_deg)]
    for name, pose in spec.objects.items():
        poses = np.array([state[name] for state in states])
        columns += [(poses[:, 0], pose.x), (poses[:, 1], pose.y), (poses[:, 2], pose.z)]
        np.testing.assert_allclose(np.linalg.norm(poses[:, 3:7], axis=1), 1, atol=1e-12)
        # Upright things turn round z: z w of the quaternion are sine and cosine of half the yaw.
        columns += [(np.degrees(2 * np.arctan2(poses[:, 5], poses[:, 6])), pose.yaw_deg)]
    for values, (low, high) in columns:
        assert (values >= low - 1e-9).all() and (values <= high + 1e-9).all()
        # 300 uniform draws miss the outer 5 % on one side with a chance of 2e-7.
        assert values.min() <= low + 0.05 * (high - low) + 1e-9 and values.max() >= high - 0.05 * (high - low) - 1e-9


def test_joints_start_where_the_task_says_and_the_others_at_zero(write_task):
    def change(data):
        data["initial_state"]["joints"]["cabinet"] = {"drawer_middle_joint": [-0.2, -0.1], "drawer_top_joint": -0.05}

    write_task("ajar", change, base="open_drawer")
    composition = load_task("ajar")
    joints = list(composition.scene.asset("cabinet", "").joints)
    assert joints == ["drawer_bottom_joint", "drawer_middle_joint", "drawer_top_joint"]
    for index in range(20):
        bottom, middle, top = sample_initial_state(composition, seed=0, index=index)["cabinet"]
        assert bottom == 0 and top == -0.05 and -0.2 <= middle <= -0.1


def test_thing_that_the_task_does_not_place_stands_where_the_scene_says(write_task):
    write_task("still", lambda data: data["initial_state"].pop("objects"))
    state = sample_initial_state(load_task("still"), seed=0, index=0)
    np.testing.assert_allclose(state["apple"], [0, 0.2, 0.9375, 0, 0, 0, 1])


# --- where the bodies are -------------------------------------------------------------------------------------------


def test_bodies_of_the_apple_task_are_where_the_state_and_the_scene_say():
    composition = load_task("move_apple")
    state = sample_initial_state(composition, seed=0, index=0)
    poses = body_poses(composition, state)
    assert sorted(poses) == ["apple", "counter", "cutting_board"]
    np.testing.assert_array_equal(poses["apple"], state["apple"])
    np.testing.assert_allclose(poses["cutting_board"], [0, -0.2, 0.908, 0, 0, 0, 1])


def test_drawer_slides_out_towards_the_hand():
    """Cabinet at x = 0.30 m; drawers 0.045 + 0.105 m up and 0.222 m apart; a joint position is metres along x."""
    composition = load_task("open_drawer")
    poses = body_poses(composition, {"cabinet": np.array([0.0, -0.10, -0.25])})
    np.testing.assert_allclose(poses["cabinet/frame"], [0.30, 0, 0, 0, 0, 0, 1], atol=1e-6)
    np.testing.assert_allclose(poses["cabinet/drawer_bottom"], [0.30, 0, 0.150, 0, 0, 0, 1], atol=1e-6)
    np.testing.assert_allclose(poses["cabinet/drawer_middle"], [0.20, 0, 0.372, 0, 0, 0, 1], atol=1e-6)
    np.testing.assert_allclose(poses["cabinet/drawer_top"], [0.05, 0, 0.594, 0, 0, 0, 1], atol=1e-6)


def test_handle_keypoint_is_on_the_bar():
    """The bar is 4.5 cm before the front of the closed cabinet, at the height of the drawer's middle."""
    request = make_request(load_task("open_drawer"), seed=0, index=0)
    np.testing.assert_allclose(request.keypoints_e, [[0.255, 0, 0.594]], atol=1e-6)


def test_bodies_of_a_turned_cabinet_turn_with_it(write_task, write_scene):
    """Turned by +90 deg round z the drawers, which slide along -x of the cabinet, slide along -y of the room."""

    def change(data):
        data["assets"][0].update(position=[1.0, 2.0, 0.5], yaw_deg=90)

    write_scene("turned_room", change, base="living_room")
    write_task("turned", lambda data: data.update(scene="turned_room"), base="open_drawer")
    poses = body_poses(load_task("turned"), {"cabinet": np.array([0.0, 0.0, -0.25])})
    np.testing.assert_allclose(poses["cabinet/frame"], [1, 2, 0.5, 0, 0, HALF, HALF], atol=1e-6)
    np.testing.assert_allclose(poses["cabinet/drawer_top"], [1, 1.75, 1.094, 0, 0, HALF, HALF], atol=1e-6)
    request = make_request(load_task("turned"), seed=0, index=0)
    np.testing.assert_allclose(request.keypoints_e, [[1, 1.955, 1.094]], atol=1e-6)


# --- articulations that nothing holds -------------------------------------------------------------------------------


def test_free_articulation_has_a_root_and_joints(write_task):
    def change(data):
        data["initial_state"]["objects"]["pliers"] = {"x": [0.1, 0.2], "y": 0.3, "z": 0.909, "yaw_deg": 90}
        data["initial_state"]["joints"]["pliers"] = {"hinge": [0.4, 0.5]}

    write_task("apart", change, base="close_pliers")
    for index in range(20):
        state = sample_initial_state(load_task("apart"), seed=0, index=index)["pliers"]
        assert state.shape == (8,) and 0.1 <= state[0] <= 0.2 and 0.4 <= state[7] <= 0.5
        np.testing.assert_allclose(state[1:7], [0.3, 0.909, 0, 0, HALF, HALF], atol=1e-12)


def test_free_articulation_that_the_task_does_not_place_lies_where_the_scene_says(write_task):
    write_task("still", lambda data: data["initial_state"].pop("objects"), base="close_pliers")
    composition = load_task("still")
    state = sample_initial_state(composition, seed=0, index=0)["pliers"]
    np.testing.assert_allclose(state[:7], composition.scene.asset("pliers", "").pose())


def test_halves_turn_with_the_root_and_the_second_by_the_hinge():
    """Root turned by 90 deg: its y axis points along -x of the room. The hinge adds 60 deg round z: 150 deg in all."""
    root = np.array([0.1, 0.2, 0.909, 0, 0, HALF, HALF])
    poses = body_poses(load_task("close_pliers"), {"pliers": np.append(root, np.radians(60))})
    np.testing.assert_allclose(poses["pliers/left"], root, atol=1e-6)
    sine, cosine = np.sin(np.radians(75)), np.cos(np.radians(75))
    np.testing.assert_allclose(poses["pliers/right"], [0.1, 0.2, 0.909, 0, 0, sine, cosine], atol=1e-6)


@pytest.mark.parametrize("task", ["close_pliers", "close_scissors"])
def test_handles_spread_to_the_right_and_the_first_is_the_near_one(task):
    """Seen from the camera on the right: the near one, at smaller x, is on the left of the picture."""
    composition = load_task(task)
    for index in range(20):
        near, far = make_request(composition, seed=2, index=index).keypoints_e
        tool = sample_initial_state(composition, seed=2, index=index)[composition.task.keypoints[0].body.split("/")[0]]
        assert far[0] - near[0] > 0.05 and abs(far[1] - near[1]) < 0.03
        assert max(near[1], far[1]) < tool[1] - 0.02
