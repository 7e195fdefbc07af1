"""Plans: interpolation, noise and what a plan refuses."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from scaffoldlab.errors import ScaffoldError
from scaffoldlab.geometry import matrix_from_rpy, quat_xyzw_from_rpy, rpy_chain, rpy_from_quat_xyzw
from scaffoldlab.keypoints.keypoint import Keypoint
from scaffoldlab.plans.plan import Plan, interpolate, with_waypoint_noise

METRES = st.floats(-10, 10, width=32)
WAYPOINTS = st.tuples(st.integers(2, 12), st.integers(1, 3), st.just(3)).flatmap(
    lambda s: arrays(float, s, elements=METRES)
)
STEPS = st.integers(2, 60)


def make_plan(n=4, index=0, **changes):
    """An apple that is carried 0.3 m to the left over a board at rest."""
    path = np.linspace((0, 0, 0.9), (0, 0.3, 0.9), n)
    fields = {
        "task": "move_apple",
        "keypoints": (Keypoint("apple", "apple", (0, 0, 0)), Keypoint("board", "cutting_board", (0, 0, 0.01))),
        "keypoints_e": np.stack((path, np.broadcast_to((0, 0.3, 0.9), (n, 3))), 1),
        "wrist_e": np.concatenate((path + np.array((0, 0, 0.05)), np.zeros((n, 3))), 1),
        "initial_state": {"hand": np.array([0, 0, 0.95, 0, 0, 0]), "apple": np.array([0, 0, 0.9, 0, 0, 0, 1.0])},
        "provenance": {"index": index, "seed": 0},
    }
    return Plan(**fields | changes)


def test_interpolation_of_two_segments_by_hand():
    waypoints = np.array([[0.0, 10.0], [1.0, 20.0], [3.0, 0.0]])
    expected = [[0, 10], [0.5, 15], [1, 20], [2, 10], [3, 0]]
    np.testing.assert_array_equal(interpolate(waypoints, 5), expected)


def test_fewer_steps_than_waypoints_sample_the_line():
    np.testing.assert_array_equal(interpolate(np.array([0.0, 8.0, 4.0, 6.0]), 3), [0, 6, 6])


def test_tracks_of_a_plan_by_hand():
    keypoints, wrist = make_plan(n=4).tracks(7)
    assert keypoints.shape == (7, 2, 3)
    assert wrist.shape == (7, 6)
    np.testing.assert_allclose(keypoints[:, 0, 1], [0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3], atol=1e-15)
    np.testing.assert_allclose(wrist[3], (0, 0.15, 0.95, 0, 0, 0), atol=1e-15)


@given(WAYPOINTS, STEPS)
def test_interpolation_keeps_both_ends_exactly(waypoints, steps):
    result = interpolate(waypoints, steps)
    assert result.shape == (steps, *waypoints.shape[1:])
    np.testing.assert_array_equal(result[[0, -1]], waypoints[[0, -1]])


@given(WAYPOINTS, STEPS)
def test_interpolation_stays_within_the_waypoints(waypoints, steps):
    result = interpolate(waypoints, steps)
    assert np.all(result >= waypoints.min(0) - 1e-12)
    assert np.all(result <= waypoints.max(0) + 1e-12)


@given(WAYPOINTS, STEPS, arrays(float, (3, 3), elements=METRES), arrays(float, 3, elements=METRES))
def test_interpolation_commutes_with_affine_maps(waypoints, steps, matrix, shift):
    mapped = interpolate(waypoints @ matrix + shift, steps)
    np.testing.assert_allclose(mapped, interpolate(waypoints, steps) @ matrix + shift, atol=1e-10)


@given(WAYPOINTS, STEPS)
def test_interpolation_backwards_is_the_same_track_backwards(waypoints, steps):
    np.testing.assert_allclose(interpolate(waypoints[::-1], steps), interpolate(waypoints, steps)[::-1], atol=1e-12)


@given(WAYPOINTS, st.integers(1, 5))
def test_interpolation_passes_through_every_waypoint(waypoints, per_segment):
    steps = per_segment * (len(waypoints) - 1) + 1
    np.testing.assert_allclose(interpolate(waypoints, steps)[::per_segment], waypoints, atol=1e-12)


@pytest.mark.parametrize(("count", "steps"), [(0, 5), (1, 5), (3, 1), (3, 0), (3, -1)])
def test_interpolation_needs_two_waypoints_and_two_steps(count, steps):
    with pytest.raises(ScaffoldError, match=f"got {count} waypoints and {steps} steps; allowed: at least 2"):
        interpolate(np.zeros((count, 3)), steps)


def test_noise_spares_the_start_the_angles_and_the_original():
    plan = make_plan(n=20)
    before = plan.keypoints_e.copy(), plan.wrist_e.copy()
    noisy = with_waypoint_noise(plan, sigma=0.02, seed=3)
    np.testing.assert_array_equal(noisy.keypoints_e[0], plan.keypoints_e[0])
    np.testing.assert_array_equal(noisy.wrist_e[0], plan.wrist_e[0])
    np.testing.assert_array_equal(noisy.wrist_e[:, 3:], plan.wrist_e[:, 3:])
    assert np.all(noisy.keypoints_e[1:] != plan.keypoints_e[1:])
    assert np.all(noisy.wrist_e[1:, :3] != plan.wrist_e[1:, :3])
    np.testing.assert_array_equal(plan.keypoints_e, before[0])
    np.testing.assert_array_equal(plan.wrist_e, before[1])
    assert noisy.provenance == {"index": 0, "seed": 0, "waypoint_noise_m": 0.02, "waypoint_noise_seed": 3}


def test_noise_has_the_asked_deviation_and_no_bias():
    plan = make_plan(n=5000)
    noisy = with_waypoint_noise(plan, sigma=0.02, seed=0)
    noise = np.concatenate(
        [(noisy.keypoints_e - plan.keypoints_e)[1:].ravel(), (noisy.wrist_e - plan.wrist_e)[1:, :3].ravel()]
    )
    assert noise.std() == pytest.approx(0.02, rel=0.02)  # 45 000 draws: one standard error is 0.3 %
    assert abs(noise.mean()) < 4 * 0.02 / np.sqrt(noise.size)


def test_noise_depends_on_seed_and_index_alone():
    def shift(index, seed):
        plan = make_plan(index=index)
        return with_waypoint_noise(plan, sigma=0.01, seed=seed).keypoints_e - plan.keypoints_e

    np.testing.assert_array_equal(shift(0, 1), shift(0, 1))
    assert np.all(shift(0, 1)[1:] != shift(1, 1)[1:])
    assert np.all(shift(0, 1)[1:] != shift(0, 2)[1:])


def test_noise_is_no_other_stream_of_the_same_seed():
    plan = make_plan()
    other = np.random.default_rng((5, 0)).normal(0, 0.01, (3, 2, 3))
    assert not np.allclose((with_waypoint_noise(plan, sigma=0.01, seed=5).keypoints_e - plan.keypoints_e)[1:], other)


@pytest.mark.parametrize(
    ("sigma", "seed", "provenance"), [(-0.1, 0, {"index": 0}), (0.1, -1, {"index": 0}), (0.1, 0, {})]
)
def test_noise_refuses_what_it_cannot_draw(sigma, seed, provenance):
    with pytest.raises(ScaffoldError, match="allowed: sigma >= 0, seed >= 0, provenance with 'index'"):
        with_waypoint_noise(make_plan(provenance=provenance), sigma=sigma, seed=seed)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"wrist_e": np.zeros((1, 6)), "keypoints_e": np.zeros((1, 2, 3))}, "got 1 waypoints; allowed: at least 2"),
        ({"keypoints_e": np.zeros((4, 3, 3))}, r"keypoints_e has shape \(4, 3, 3\); allowed: \(4, 2, 3\)"),
        ({"wrist_e": np.zeros((4, 3))}, r"wrist_e has shape \(4, 3\); allowed: \(4, 6\)"),
        ({"keypoints_e": np.full((4, 2, 3), np.nan)}, "keypoints_e holds numbers that are not finite"),
        (
            {"initial_state": {"apple": np.array([np.inf])}},
            r"initial_state\['apple'\] holds numbers that are not finite",
        ),
        ({"wrist_e": np.array([[0, 0, 0, 0, 0, a] for a in (0, 3, -3, 0)])}, "turns by 6.00 rad .* np.unwrap"),
    ],
)
def test_plan_refuses_what_cannot_be_tracked(changes, message):
    with pytest.raises(ScaffoldError, match=f"plan of task 'move_apple': .*{message}"):
        make_plan(**changes)


# --- orientation ----------------------------------------------------------------------------------------------------


def turning(*rpy_deg):
    """A plan that stays where it is and turns from one orientation to the next."""
    angles = np.radians(rpy_deg)
    wrist_e = np.concatenate([np.zeros((len(angles), 3)), angles], 1)
    return make_plan(wrist_e=wrist_e, keypoints_e=np.zeros((len(angles), 2, 3)))


def rotations(track):
    return matrix_from_rpy(track[:, 3:])


@given(arrays(float, (2, 3), elements=st.floats(-1.5, 1.5)))
def test_rotation_turns_about_one_axis_at_one_speed_and_without_jumps(angles):
    """Between two waypoints every step turns by the same matrix: this is what spherical interpolation means."""
    _, track = turning(*np.degrees(angles)).tracks(9)
    np.testing.assert_allclose(track[[0, -1], 3:], angles, atol=1e-12)
    matrices = rotations(track)
    steps = np.swapaxes(matrices[:-1], 1, 2) @ matrices[1:]
    np.testing.assert_allclose(steps, np.broadcast_to(steps[0], steps.shape), atol=1e-6)


def test_rotation_about_one_axis_is_linear_in_its_angle():
    for axis in range(3):
        goal = np.zeros(3)
        goal[axis] = 80
        _, track = turning((0, 0, 0), goal).tracks(5)
        np.testing.assert_allclose(np.degrees(track[:, 3 + axis]), [0, 20, 40, 60, 80], atol=1e-9)


def test_rotation_through_a_pitch_of_90_degrees_does_not_jump():
    """(180, 60, 180) is the rotation (0, 120, 0): in a chain it follows (0, 60, 0) as that."""
    chain = rpy_chain(np.radians([(360, 60, 0), (180, 60, 180)]), start=np.zeros(3))
    np.testing.assert_allclose(np.degrees(chain), [(0, 60, 0), (0, 120, 0)], atol=1e-9)
    _, track = turning(*np.degrees(chain)).tracks(7)
    expected = np.column_stack((np.zeros(7), [60, 70, 80, 90, 100, 110, 120], np.zeros(7)))
    np.testing.assert_allclose(np.degrees(track[:, 3:]), expected, atol=1e-5)


@given(arrays(float, 3, elements=st.floats(-7, 7)), st.sampled_from([None, -1, 1]), st.floats(-3, 3))
def test_angles_of_a_rotation_are_those_near_by_and_give_the_same_rotation(rpy, lock, off):
    if lock:
        rpy[1] = lock * np.pi / 2
    found = rpy_from_quat_xyzw(quat_xyzw_from_rpy(rpy), near=rpy + off * np.array([0.1, 0, 0.1]))
    np.testing.assert_allclose(matrix_from_rpy(found), matrix_from_rpy(rpy), atol=1e-6)
    np.testing.assert_allclose(rpy_from_quat_xyzw(quat_xyzw_from_rpy(rpy), near=rpy), rpy, atol=1e-5)


def test_plan_that_does_not_turn_keeps_its_angles_to_the_last_bit():
    plan = make_plan(n=20)
    plan.wrist_e[:, 3:] = (0.1, 0.2, 0.3)
    _, track = plan.tracks(200)
    assert (track[:, 3:] == interpolate(plan.wrist_e, 200)[:, 3:]).all()
