"""Success conditions that remember an episode or read a body, on tracks made by hand; no simulator."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from scaffoldlab.geometry import quat_xyzw_from_rpy
from scaffoldlab.specs.models import Condition, Displaced, Swings
from scaffoldlab.terms.success import Displacement, SuccessCondition, SwingCount


def over_time(memory, *tracks, begins=None):
    """What a memory holds after each step; each track is one env: heights, or positions [m]."""
    positions = np.array(tracks, float)
    if positions.ndim == 2:
        positions = np.stack([0 * positions, 0 * positions, positions], -1)
    held = []
    for step in range(positions.shape[1]):
        first = torch.full((len(positions),), step == 0) if begins is None else torch.tensor(begins[step])
        memory.update(torch.tensor(positions[:, step], dtype=torch.float32), first)
        held.append(memory.holds().tolist())
    return np.array(held).T


def swings(num_envs=1, **fields):
    return SwingCount(Swings(keypoint="head", **fields), num_envs, "cpu")


def displacement(num_envs=1, **fields):
    return Displacement(Displaced(keypoint="sponge", **fields), num_envs, "cpu")


# --- swings ---------------------------------------------------------------------------------------------------------


def test_a_swing_is_up_by_the_height_and_down_by_the_height():
    held = over_time(swings(3, height=0.05), [0.9, 0.96, 0.92, 0.90], [0.9, 0.94, 0.90, 0.94], [0.9, 0.96, 0.97, 0.96])
    assert held.tolist() == [[False, False, False, True], [False] * 4, [False] * 4]


def test_three_swings_need_three_ups_and_downs():
    track = [0.9, 1.0, 0.9, 1.0, 0.9, 1.0, 0.9]
    held = over_time(swings(2, height=0.05, count=3), track, [0.9, 1.0, 0.9, 1.0, 0.9, 0.92, 0.9])
    assert held.tolist() == [[False] * 6 + [True], [False] * 7]


def test_small_steps_add_up_and_trembling_does_not():
    slow = [0.9 + 0.01 * k for k in (*range(8), *reversed(range(8)))]
    tremble = [0.9 + 0.02 * (k % 2) for k in range(16)]
    assert over_time(swings(2, height=0.05), slow, tremble)[:, -1].tolist() == [True, False]


def test_rise_is_measured_from_the_lowest_point_and_the_fall_from_the_highest():
    """Down by 10 cm first, then up by 6 cm to below the start, then down by 6 cm."""
    memory = swings(height=0.05)
    over_time(memory, [0.9, 0.8, 0.86, 0.80])
    assert memory.count.item() == 1


def test_strike_counts_when_it_comes_down_to_where_it_lay():
    """Both go up and down by 10 cm three times; the second never comes down to the table."""
    strike, air = [0.9, 1.0, 0.91] * 3, [0.9, 1.1, 1.0, 1.1, 1.0, 1.1, 1.0, 1.1, 1.0]
    held = over_time(swings(2, height=0.05, count=2, down_to=0.02), strike, air)
    assert held[:, -1].tolist() == [True, False]


def test_swings_of_an_earlier_episode_are_forgotten_in_that_env_alone():
    memory = swings(2, height=0.05)
    track = [0.9, 1.0, 0.9, 0.9]
    held = over_time(memory, track, track, begins=[[True, True], [False, False], [False, False], [True, False]])
    assert held[:, 2].tolist() == [True, True] and held[:, 3].tolist() == [False, True]


# --- displaced ------------------------------------------------------------------------------------------------------


def test_displaced_is_over_ground_and_from_the_start_of_the_episode():
    there = [[1.0, 2.0, 0.9], [1.0, 2.2, 0.9], [1.3, 2.4, 0.9], [1.0, 2.0, 0.9]]
    up = [[1.0, 2.0, 0.9], [1.0, 2.0, 1.4], [1.0, 2.0, 1.9], [1.0, 2.0, 0.9]]
    held = over_time(displacement(2, distance=0.3), there, up)
    assert held.tolist() == [[False, False, True, False], [False] * 4]


def test_thing_that_was_lifted_on_the_way_has_not_kept_its_height():
    slid, carried = np.zeros((2, 4, 3))
    slid[:, 0] = carried[:, 0] = [0, 0.1, 0.2, 0.4]
    carried[2, 2] = 0.1
    held = over_time(displacement(2, distance=0.3, height_tolerance=0.03), slid, carried)
    assert held[:, -1].tolist() == [True, False]
    again = np.zeros((1, 4, 3))
    again[:, :, 0] = [0.4, 0.8, 0.8, 0.8]  # lifted in the last episode only
    memory = displacement(1, distance=0.3, height_tolerance=0.03)
    over_time(memory, carried)
    assert over_time(memory, *again)[0].tolist() == [False, True, True, True]


# --- upright, joint_within, touching --------------------------------------------------------------------------------


def command(num_envs, step=1):
    """As much of a plan command as conditions read: one body, one joint, one contact sensor."""
    data = SimpleNamespace(
        joint_pos=SimpleNamespace(torch=torch.zeros(num_envs, 1)),
        force_matrix_w=SimpleNamespace(torch=torch.zeros(num_envs, 1, 1, 3)),
    )
    asset = SimpleNamespace(data=data, find_joints=lambda name: ([0], [name]))
    return SimpleNamespace(
        num_envs=num_envs, device="cpu", step=torch.full((num_envs,), step), body_column=lambda name: 0,
        body_poses=torch.tensor([[0.0, 0, 0, 0, 0, 0, 1]]).repeat(num_envs, 1)[:, None],
        scene={"scissors": asset, "touching_box_bottle": asset},
    )  # fmt: skip


def condition_of(fake, **condition):
    task = SimpleNamespace(
        success=Condition.model_validate(condition),
        keypoints=[SimpleNamespace(name="head", body="hammer", point=(0.0, 0.0, 0.0))],
    )
    return SuccessCondition(SimpleNamespace(task=task), fake)


@pytest.mark.parametrize(
    ("rpy_deg", "axis", "expected"),
    [
        ((0, 0, 90), "z", True),
        ((0, 14, 0), "z", True),
        ((16, 0, 0), "z", False),
        ((180, 0, 0), "z", False),
        ((90, 0, 0), "y", True),
        ((0, -90, 0), "x", True),
    ],
)
def test_upright_is_the_angle_between_the_axis_and_up(rpy_deg, axis, expected):
    fake = command(1)
    fake.body_poses[0, 0, 3:] = torch.tensor(quat_xyzw_from_rpy(np.radians(rpy_deg)))
    assert condition_of(fake, upright={"body": "bottle", "axis": axis, "angle_deg": 15})().tolist() == [expected]


def test_joint_within_is_near_zero_from_both_sides():
    fake = command(4)
    fake.scene["scissors"].data.joint_pos.torch[:, 0] = torch.tensor([0.5, 0.1, 0.08, -0.08])
    condition = condition_of(fake, joint_within={"asset": "scissors", "joint": "hinge", "distance": 0.087})
    assert condition().tolist() == [False, False, True, True]


def test_touching_is_a_force_between_the_two():
    fake = command(3)
    fake.scene["touching_box_bottle"].data.force_matrix_w.torch[:, 0, 0] = torch.tensor(
        [[0.0, 0, 0], [0, -2, 0], [1e-5, 0, 0]]
    )
    assert condition_of(fake, touching={"body": "box", "other": "bottle"})().tolist() == [False, True, False]


# --- memory beside an evaluation ------------------------------------------------------------------------------------


def test_what_is_remembered_can_be_put_aside_and_taken_up_again():
    """As an evaluation does in the middle of training: one swing before it and one after it make two."""
    fake = command(1)
    condition = condition_of(fake, swings={"keypoint": "head", "height": 0.05, "count": 2})

    def move(*heights, first=1):
        for step, height in enumerate(heights, start=first):
            fake.step[:] = step
            fake.body_poses[:, 0, 2] = height
            condition.update()

    move(0.9, 1.0, 0.9, 0.96)
    aside = {name: tensor.clone() for name, tensor in condition.running().items()}
    move(0.5, 0.5)
    assert not condition()
    for name, tensor in condition.running().items():
        tensor.copy_(aside[name])
    move(0.9, first=5)
    assert condition()


def test_asking_twice_changes_nothing():
    fake = command(1)
    condition = condition_of(fake, swings={"keypoint": "head", "height": 0.05})
    condition.update()
    before = {name: tensor.clone() for name, tensor in condition.running().items()}
    assert before and not condition() and not condition()
    assert all(torch.equal(tensor, before[name]) for name, tensor in condition.running().items())
