"""The arm: the data sheet's numbers, its kinematics by Denavit and Hartenberg, damped least squares by equation 5."""

import numpy as np
import pytest
import torch
from pxr import Usd, UsdPhysics

from conftest import ROOT, write_yaml
from scaffoldlab.deployment.loop import RobotHand
from scaffoldlab.errors import ScaffoldError
from scaffoldlab.geometry import matrix_from_rpy
from scaffoldlab.robots.kinematics import KinematicTree
from scaffoldlab.specs.initial_state import sample_initial_state
from scaffoldlab.specs.models import RobotSpec, load_task
from scaffoldlab.usd.reader import joints, link_poses

ARM = ROOT / "assets/robots/iiwa_allegro/iiwa_allegro.usda"
NAMES = [f"arm_{n}" for n in range(1, 8)]
LIMITS = np.radians([170, 120, 170, 120, 170, 120, 175])
DH = list(zip((0.36, 0, 0.42, 0, 0.40, 0, 0.126), np.radians((-90, 90, 90, -90, -90, 90, 0)), strict=True))
"""d [m] and alpha of the LBR iiwa 14 R820 (a = 0), as in the literature on its inverse kinematics."""
APPLE = load_task("move_apple_arm").task
BASE, CENTER = np.array([-0.85, 0, 0.75]), np.array(APPLE.grasp.center)


def dh_chain(q: np.ndarray) -> np.ndarray:
    """Base to flange, 4 x 4."""
    pose = np.eye(4)
    for (d, alpha), angle in zip(DH, q, strict=True):
        c, s, ca, sa = np.cos(angle), np.sin(angle), np.cos(alpha), np.sin(alpha)
        pose = pose @ np.array([[c, -s * ca, s * sa, 0], [s, c * ca, -c * sa, 0], [0, sa, ca, d], [0, 0, 0, 1]])
    return pose


def hand_point(q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Grasp centre of Move Apple in the env frame, and the rotation that roll, pitch and yaw describe."""
    flange = dh_chain(q)
    # The palm's box is centred on the flange, 15 mm of plate between them; at zero angles the palm faces down.
    point = flange[:3, 3] + flange[:3, :3] @ (CENTER + np.array([0.0205, 0, 0.015 + 0.095]))
    return BASE + point, flange[:3, :3] @ matrix_from_rpy(np.radians([0, 90, 0])).T


def numeric_jacobian(q: np.ndarray, step: float = 1e-6) -> np.ndarray:
    """Linear and angular velocity of the hand per joint, by central differences of the chain above."""
    columns = []
    for k in range(7):
        (p1, r1), (p0, r0) = hand_point(q + step * np.eye(7)[k]), hand_point(q - step * np.eye(7)[k])
        spin = (r1 @ r0.T - r0 @ r1.T) / (4 * step)
        columns.append(np.r_[(p1 - p0) / (2 * step), spin[2, 1], spin[0, 2], spin[1, 0]])
    return np.array(columns).T


def rotation_vector(rotation: np.ndarray) -> np.ndarray:
    angle = np.arccos(np.clip((np.trace(rotation) - 1) / 2, -1, 1))
    axis = np.array([rotation[2, 1] - rotation[1, 2], rotation[0, 2] - rotation[2, 0], rotation[1, 0] - rotation[0, 1]])
    return axis * (0.5 if angle < 1e-9 else angle / (2 * np.sin(angle)))


@pytest.fixture
def composition():
    return load_task("move_apple_arm")


@pytest.fixture
def hand(composition):
    return RobotHand(composition)


def random_poses(count: int, share: float = 0.6) -> np.ndarray:
    return np.random.default_rng(0).uniform(-share, share, (count, 7)) * LIMITS


# --- the asset ------------------------------------------------------------------------------------------------------


def test_joints_have_the_limits_of_the_data_sheet():
    found = {j.name: j.limits for j in joints(ARM)}
    for name, limit in zip(NAMES, LIMITS, strict=True):
        np.testing.assert_allclose(found[name], (-limit, limit), atol=1e-6)


def test_arm_weighs_what_the_data_sheet_says():
    """29.9 kg, within 1 kg: the links' masses are those of the public descriptions."""
    stage = Usd.Stage.Open(str(ARM))
    bodies = {
        p.GetName(): UsdPhysics.MassAPI(p).GetMassAttr().Get() for p in stage.Traverse() if p.HasAPI(UsdPhysics.MassAPI)
    }
    assert sum(m for n, m in bodies.items() if n.startswith("arm_")) == pytest.approx(29.9, abs=1.0)
    assert bodies["palm"] == pytest.approx(0.4154)


def test_drives_have_the_torques_of_the_data_sheet(composition):
    assert composition.robot.wrist_drive.effort == [320, 320, 176, 176, 110, 40, 40]


def test_hand_is_the_floating_one_s():
    """The same joints hang on the palm, with the same frames and limits."""
    floating = {j.name: j for j in joints(ROOT / "assets/robots/allegro_floating/allegro_floating.usda")}
    fingers = [j for j in joints(ARM) if j.name.startswith(("index", "middle", "ring", "thumb"))]
    assert len(fingers) == 16
    for joint in fingers:
        twin = floating[joint.name]
        assert (joint.kind, joint.parent, joint.child, joint.limits) == (
            twin.kind,
            twin.parent,
            twin.child,
            twin.limits,
        )
        for mine, other in (
            (joint.in_parent, twin.in_parent),
            (joint.in_child, twin.in_child),
            (joint.axis, twin.axis),
        ):
            np.testing.assert_array_equal(mine, other)


@pytest.mark.parametrize("q", [np.zeros(7), *random_poses(6, 1.0)], ids=range(7))
def test_flange_moves_as_denavit_and_hartenberg_say(q):
    poses = link_poses(ARM, dict(zip(NAMES, q, strict=True)))
    flange = dh_chain(q)
    np.testing.assert_allclose(poses["palm"][:3], (flange @ [0.0205, 0, 0.11, 1])[:3], atol=1e-5)
    from allegro import matrix_of

    np.testing.assert_allclose(matrix_of(poses["palm"][3:]), flange[:3, :3], atol=1e-5)


# --- kinematics -----------------------------------------------------------------------------------------------------


def test_wrist_is_the_hand_point_in_the_env_frame(hand):
    for q in random_poses(8):
        wrist = hand.arm.wrist(torch.tensor(q[None], dtype=torch.float32), hand.center)[0].numpy()
        point, rotation = hand_point(q)
        np.testing.assert_allclose(wrist[:3], point, atol=1e-5)
        np.testing.assert_allclose(matrix_from_rpy(wrist[3:]), rotation, atol=1e-5)


def test_jacobian_is_the_derivative_of_the_pose(composition):
    base = torch.tensor([*BASE, 0, 0, 0, 1.0], dtype=torch.float32)
    tree = KinematicTree(ARM, NAMES, ["palm"], device="cpu", base=base)
    q = random_poses(16)
    points = torch.tensor(np.array([hand_point(row)[0] for row in q]), dtype=torch.float32)
    got = tree.jacobian(torch.tensor(q, dtype=torch.float32), "palm", points).numpy()
    np.testing.assert_allclose(got, [numeric_jacobian(row) for row in q], atol=2e-5)


def test_jacobian_of_a_prismatic_chain_is_the_derivative_too():
    """The floating hand: three slides and three hinges; by differences of the tree's own poses."""
    path = ROOT / "assets/robots/allegro_floating/allegro_floating.usda"
    names = [f"wrist_{n}" for n in ("x", "y", "z", "roll", "pitch", "yaw")]
    tree = KinematicTree(path, names, ["palm"], device="cpu")
    q = torch.tensor(np.random.default_rng(1).uniform(-1, 1, (1, 6)), dtype=torch.float32)
    jacobian = tree.jacobian(q, "palm", tree.poses(q)[:, 0, :3])[0]
    for k in range(6):
        step = 1e-2 * torch.eye(6)[k]
        slope = (tree.poses(q + step) - tree.poses(q - step))[0, 0, :3] / 2e-2
        np.testing.assert_allclose(jacobian[:3, k], slope, atol=1e-4)


def test_step_is_equation_5(hand):
    """theta + J^T (J J^T + 0.25 I)^-1 e on random poses and targets, with J and e from the chain above."""
    hand.arm.damping = 0.5
    rng = np.random.default_rng(2)
    for q in random_poses(12):
        point, rotation = hand_point(q)
        rpy = rng.uniform(-0.7, 0.7, 3)
        target = np.r_[point + rng.uniform(-0.2, 0.2, 3), rpy]
        target[2] = max(target[2], 0.95)
        error = np.r_[target[:3] - point, rotation_vector(matrix_from_rpy(rpy) @ rotation.T)]
        jacobian = numeric_jacobian(q)
        expected = q + jacobian.T @ np.linalg.solve(jacobian @ jacobian.T + 0.5**2 * np.eye(6), error)
        tensors = (torch.tensor(a[None], dtype=torch.float32) for a in (q, target))
        got = hand.arm.step(*tensors, hand.center)[0].numpy()
        np.testing.assert_allclose(got, np.clip(expected, -LIMITS, LIMITS), atol=2e-4)


def test_targets_stay_within_the_limits_of_the_joints(hand):
    q = torch.tensor(0.999 * LIMITS[None], dtype=torch.float32)
    far = torch.tensor([[3.0, 3.0, 3.0, 0, 0, 0]])
    moved = torch.cat([hand.arm.step(s * q, t * far, hand.center) for s in (1, -1) for t in (1, -1)]).abs().numpy()
    assert (moved <= LIMITS + 1e-6).all() and np.isclose(moved, LIMITS, atol=1e-6).any()


def test_wrist_target_stays_above_the_table(write_task, write_scene):
    write_scene("low", lambda data: data.update(table_height=0.9))
    write_task("arm_low", lambda data: data.update(robot="iiwa_allegro", scene="low"))
    hand = RobotHand(load_task("arm_low"))
    q = torch.tensor([load_task("arm_low").robot.arm.rest], dtype=torch.float32)
    below, at = (torch.tensor([[0.0, 0.0, z, 0, 0, 0]]) for z in (0.5, 0.9))
    torch.testing.assert_close(hand.arm.step(q, below, hand.center), hand.arm.step(q, at, hand.center))
    assert below[0, 2] == 0.5  # the caller's target is left as it is


# --- initial postures -----------------------------------------------------------------------------------------------


def test_every_initial_hand_pose_of_move_apple_is_reached(hand):
    """All eight corners of the range, and 64 of the poses between them."""
    rng = np.random.default_rng(3)
    corners = np.array(np.meshgrid([-0.15, 0.05], [0.05, 0.25], [1.10, 1.25])).reshape(3, -1).T
    points = np.r_[corners, rng.uniform(corners.min(0), corners.max(0), (64, 3))]
    rpy = np.c_[
        np.zeros(72),
        np.full(72, np.radians(np.mean(APPLE.initial_state.hand.pitch_deg))),
        np.radians(rng.uniform(-22.5, 22.5, 72)),
    ]
    q = hand.start(torch.tensor(np.c_[points, rpy], dtype=torch.float32)).numpy()
    assert q.shape == (72, 23) and (np.abs(q[:, :7]) <= LIMITS + 1e-6).all()
    for row, point, angles in zip(q, points, rpy, strict=True):
        at, rotation = hand_point(row[:7])
        np.testing.assert_allclose(at, point, atol=2e-4)
        np.testing.assert_allclose(rotation, matrix_from_rpy(angles), atol=3e-3)
    np.testing.assert_allclose(q[:, 7:], hand.open.expand(72, -1), atol=1e-6)


@pytest.mark.parametrize("task", ["place_bottle_arm", "slide_box_arm", "hammer_three_times_arm"])
def test_arm_stands_where_it_reaches_every_hand_pose_of_the_real_robot_s_tasks(task):
    composition = load_task(task)
    assert composition.robot.arm.position == composition.scene.arm_base
    states = [sample_initial_state(composition, seed=0, index=index)["hand"] for index in range(40)]
    RobotHand(composition).prepare(torch.tensor(np.array(states), dtype=torch.float32))


@pytest.mark.parametrize("task", ["move_apple_arm", "place_bottle_arm", "slide_box_arm", "hammer_three_times_arm"])
def test_objects_start_where_they_do_without_the_arm(task):
    """Only the hand may start elsewhere; a file with an ``initial_state`` of its own has to name the objects again."""
    own = load_task(task).task
    base = load_task(own.extends).task
    assert own.initial_state.objects == base.initial_state.objects
    assert own.initial_state.joints == base.initial_state.joints


def test_prepared_postures_are_found_again_and_others_searched(hand):
    wrist = torch.tensor([[-0.1, 0.1, 1.15, 0, 0, 0.1], [0.0, 0.2, 1.2, 0, 0, -0.1]])
    hand.prepare(wrist)
    torch.testing.assert_close(hand.start(wrist[[1, 0, 1]]), hand.start(wrist)[[1, 0, 1]], atol=0, rtol=0)
    other = wrist + 0.01
    torch.testing.assert_close(hand.arm.wrist(hand.start(other)[:, :7], hand.center), other, atol=2e-3, rtol=0)


def test_pose_out_of_reach_is_an_error_with_the_pose(hand):
    with pytest.raises(ScaffoldError, match=r"does not reach the hand pose \[1\.5, 0\.0, 1\.0.*arm\.position"):
        hand.prepare(torch.tensor([[1.5, 0.0, 1.0, 0, 0, 0]]))


# --- the record -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d["wrist_joints"].pop(), ["wrist_joints of a hand on an arm", "7", "got 6"]),
        (lambda d: d.pop("arm"), ["wrist_joints of a hand that floats", "6", "got 7"]),
        (lambda d: d["wrist_drive"].update(effort=[1, 2]), ["effort: one number, or one for each of arm_1"]),
        (lambda d: d["arm"].update(rest=[0.0]), ["arm.rest"]),
        (lambda d: d["arm"].update(lamda=1), ["unknown key 'lamda'", "damping"]),
    ],
)
def test_robot_file_with_a_mistake_is_refused(extra_root, write_task, change, words):
    source = ROOT / "assets/robots/iiwa_allegro/robot.yaml"
    write_yaml(extra_root / "assets/robots/wrong/robot.yaml", source, change)
    write_task("arm_wrong", lambda data: data.update(robot="wrong"))
    with pytest.raises(ScaffoldError) as error:
        load_task("arm_wrong")
    assert all(word in str(error.value) for word in words), error.value


def test_floating_hand_needs_no_arm():
    assert load_task("move_apple").robot.arm is None and RobotSpec.model_fields["arm"].default is None
