"""Plans made for a robot: what camera, tracker and joints say becomes the state that a planner starts from."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from test_making import RED, WOOD, kitchen_picture

from deployments import Clock, metadata_of, write_capture
from scaffoldlab.deployment.capture import CaptureFolder
from scaffoldlab.deployment.devices import JointState
from scaffoldlab.deployment.loop import Deployment, RobotHand, tracked_bodies
from scaffoldlab.deployment.planning import asset_states, plan_from_capture, present_state
from scaffoldlab.deployment.tracker import ObInCamFolder
from scaffoldlab.errors import ScaffoldError
from scaffoldlab.keypoints.keypoint import Keypoint
from scaffoldlab.planners.ledger import Ledger
from scaffoldlab.planners.making import plan_check, scripted_library
from scaffoldlab.planners.scripted import ScriptedPlanner
from scaffoldlab.planners.settings import VlmSettings
from scaffoldlab.planners.vlm import vlm_planner
from scaffoldlab.specs.initial_state import body_poses, sample_initial_state
from scaffoldlab.specs.models import load_task
from vlm_server import VlmServer

SEED, INDEX = 7, 2
"""The initial state that is in front of the camera."""


def matrix_of(pose: np.ndarray) -> np.ndarray:
    """xyz + quat_xyzw as a matrix."""
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = Rotation.from_quat(pose[3:]).as_matrix(), pose[:3]
    return matrix


class Kitchen:
    """Hand, apple and camera at an initial state; the robot is at once where it is told to be."""

    def __init__(self, task: str, folder):
        self.composition, self.clock, self.sent, self.number = load_task(task), Clock(), [], 0
        self.state_e = sample_initial_state(self.composition, seed=SEED, index=INDEX)
        self.image = kitchen_picture(self.composition, INDEX, seed=SEED)
        write_capture(self.image, folder / "capture")
        self.folder, self.apple_e = folder / "track/ob_in_cam", matrix_of(self.state_e["apple"])
        self.folder.mkdir(parents=True)
        hand = RobotHand(self.composition)
        wrist = torch.as_tensor(self.state_e["hand"][None], dtype=torch.float32)
        self.position = hand.start(wrist)[0].numpy().astype(float)
        self.camera = CaptureFolder(folder / "capture")
        self.poses = ObInCamFolder(folder / "track", tracked_bodies(self.composition))
        self.pose_c, self.tracking = np.linalg.inv(self.image.camera.pose_ec) @ self.apple_e, True

    def state(self):
        return JointState(time=self.clock(), position=self.position, velocity=0 * self.position)

    def send(self, targets):
        self.sent.append(targets.copy())
        self.position = targets.astype(float)

    def close(self):
        pass

    def poll(self):
        """The tracker writes a file before each look."""
        if self.tracking:
            self.number += 1
            np.savetxt(self.folder / f"{self.number:06d}.txt", self.pose_c)
        return self.poses.poll()

    def plan(self, planner, **settings):
        settings = {"steps": self.composition.task.episode_steps} | settings
        return plan_from_capture(
            self.composition, planner, camera=self.camera, tracker=self, robot=self, clock=self.clock,
            sleep=self.clock.sleep, **settings,
        )  # fmt: skip

    def run(self, plan):
        return Deployment(
            self.composition, policy=lambda o: np.zeros(7), metadata=metadata_of(self.composition.task.name),
            plan=plan, robot=self, tracker=self, pose_ec=self.image.camera.pose_ec, clock=self.clock,
            sleep=self.clock.sleep,
        ).run()  # fmt: skip


@pytest.fixture(params=["move_apple", "move_apple_arm"])
def kitchen(request, tmp_path):
    return Kitchen(request.param, tmp_path)


def test_oracle_plans_from_joints_and_tracked_poses_as_it_does_from_the_true_state(kitchen):
    """The state is not told: it comes out of joint positions and of the tracker's files."""
    composition = kitchen.composition
    plan, image = kitchen.plan(ScriptedPlanner(composition.task.oracle))
    expected = scripted_library(composition, count=INDEX + 1, seed=SEED).plans[INDEX]
    np.testing.assert_allclose(plan.keypoints_e, expected.keypoints_e, atol=1e-3)
    np.testing.assert_allclose(plan.wrist_e, expected.wrist_e, atol=2e-3)
    assert sorted(plan.initial_state) == sorted(expected.initial_state)
    np.testing.assert_allclose(plan.initial_state["apple"][:3], expected.initial_state["apple"][:3], atol=1e-6)
    np.testing.assert_array_equal(image.rgb, kitchen.image.rgb)


def test_model_plans_from_the_capture_and_the_loop_carries_it_out(tmp_path, monkeypatch):
    """Scaffolds, appendix C.1, whole: picture, pointing, depth, trajectory query, tracker, policy."""
    kitchen = Kitchen("move_apple", tmp_path)
    composition = kitchen.composition
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with VlmServer(colours={"apple": RED, "cutting board": WOOD}) as server:
        planner = vlm_planner(
            VlmSettings(base_url=server.url, model="gemini-loopback"), ledger=tmp_path / "ledger.jsonl",
            check=plan_check(composition),
        )  # fmt: skip
        plan, _ = kitchen.plan(planner)
        assert server.kinds() == ["keypoints", "trajectory"]
    assert [r.verdict for r in Ledger.read(tmp_path / "ledger.jsonl").records] == ["ok", "ok"]
    fruit, board = plan.keypoints
    assert (fruit.body, board.body) == ("apple", "cutting_board")
    # It pointed at the side of the apple that the camera sees, and depth has put the point there.
    apple, eye = kitchen.apple_e[:3, 3], kitchen.image.camera.pose_ec[:3, 3]
    offset = plan.keypoints_e[0, 0] - apple
    assert 0.02 < np.linalg.norm(offset) < 0.042 and offset @ (eye - apple) > 0
    np.testing.assert_allclose(plan.wrist_e[0], kitchen.state_e["hand"], atol=1e-5)
    report = kitchen.run(plan)
    assert (report.ended, report.holds) == ("done", [])
    hand = RobotHand(composition)
    hand.take(kitchen.state())
    np.testing.assert_allclose(hand.wrist[0, :3], plan.wrist_e[-1, :3], atol=0.05)  # the average lags behind a plan


def test_plan_of_fewer_waypoints_and_of_a_shorter_time(kitchen):
    planner = ScriptedPlanner(kitchen.composition.task.oracle)
    assert len(kitchen.plan(planner, waypoint_count=10)[0].wrist_e) == 10
    with pytest.raises(ScaffoldError, match="m/s"):
        kitchen.plan(planner, steps=20)  # the whole way in a third of a second


def test_bodies_that_the_tracker_does_not_give_are_named(kitchen):
    kitchen.tracking = False
    with pytest.raises(ScaffoldError) as error:
        kitchen.plan(ScriptedPlanner(kitchen.composition.task.oracle), patience=1.0)
    words = ("nothing to plan from after 1 s: no pose of apple yet", "the poses of apple", "Start them")
    assert all(word in str(error.value) for word in words), error.value


def test_pose_of_a_failed_registration_is_not_planned_from(kitchen):
    kitchen.pose_c = np.eye(4)
    with pytest.raises(ScaffoldError, match="wrong pose of apple: its rotation is the identity"):
        kitchen.plan(ScriptedPlanner(kitchen.composition.task.oracle), patience=0.5)


def test_capture_without_a_picture_is_refused(kitchen):
    (kitchen.camera.folder / "rgb/0001.png").unlink()
    with pytest.raises(ScaffoldError, match="no readable pair"):
        kitchen.plan(ScriptedPlanner(kitchen.composition.task.oracle))


def test_silent_robot_is_told(kitchen):
    kitchen.state = lambda: None
    with pytest.raises(ScaffoldError, match=r"after 0\.5 s: no joint state for 0\.1 s"):
        present_state(
            kitchen.composition, tracker=kitchen, robot=kitchen, pose_ec=kitchen.image.camera.pose_ec, patience=0.5,
            clock=kitchen.clock, sleep=kitchen.clock.sleep,
        )  # fmt: skip


def test_keypoint_on_a_body_that_nobody_tracks_is_refused(tmp_path):
    """A model that takes the lower drawer for the upper one."""

    class LowerDrawer(ScriptedPlanner):
        def plan(self, request):
            keypoint = Keypoint("handle", "cabinet/drawer_bottom", (0, 0, 0))
            return replace(super().plan(request), keypoints=(keypoint,))

    kitchen, drawer = Kitchen("move_apple", tmp_path), load_task("open_drawer")
    state = sample_initial_state(drawer, seed=0, index=0)
    pose_c = np.linalg.inv(kitchen.image.camera.pose_ec) @ matrix_of(body_poses(drawer, state)["cabinet/drawer_top"])
    kitchen.poll = lambda: {"cabinet/drawer_top": pose_c}
    hand = torch.as_tensor(state["hand"][None], dtype=torch.float32)
    kitchen.position, kitchen.composition = RobotHand(drawer).start(hand)[0].numpy().astype(float), drawer
    with pytest.raises(ScaffoldError, match="'handle' on 'cabinet/drawer_bottom', which can move and is not tracked"):
        kitchen.plan(LowerDrawer(drawer.task.oracle))


@pytest.mark.parametrize("task", ["move_apple", "open_drawer", "open_fridge", "close_pliers", "close_scissors"])
def test_asset_states_are_those_that_the_bodies_were_placed_by(task):
    """Free bodies, drawers, doors and tools that nothing holds: poses of the tracked bodies back to the state."""
    composition = load_task(task)
    for index in range(3):
        state = sample_initial_state(composition, seed=0, index=index)
        poses = body_poses(composition, state)
        got = asset_states(composition, {body: matrix_of(poses[body]) for body in tracked_bodies(composition)})
        assert sorted([*got, "hand"]) == sorted(state)
        for name, value in got.items():
            expected = state[name].copy()
            if len(value) >= 7 and value[3:7] @ expected[3:7] < 0:
                expected[3:7] *= -1  # the same rotation
            np.testing.assert_allclose(value, expected, atol=1e-6, err_msg=f"{task}, {index}, {name}")


def test_drawer_that_is_pulled_out_is_where_the_tracker_sees_it():
    """By 12 cm towards the room, the tracker 1 cm off to the side: the rail is believed."""
    composition = load_task("open_drawer")
    state = sample_initial_state(composition, seed=0, index=0)
    closed = body_poses(composition, state)["cabinet/drawer_top"]
    seen = matrix_of(closed)
    out = np.array([0.12 * np.sign(-closed[0]), 0, 0])
    seen[:3, 3] += out + np.array([0, 0.01, 0])
    (cabinet,) = asset_states(composition, {"cabinet/drawer_top": seen}).values()
    at = body_poses(composition, {"hand": state["hand"], "cabinet": cabinet})["cabinet/drawer_top"]
    np.testing.assert_allclose(at[:3], closed[:3] + out, atol=1e-6)
