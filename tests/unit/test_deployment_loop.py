"""The deployment loop without a simulator: a robot that is at once where it is told to be, and poses that fail."""

import json
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from test_making import RED, WOOD, kitchen_picture

from deployments import POSE_EC, Clock, UdpServer, metadata_of, pose_in_camera, write_capture
from scaffoldlab.cli import main
from scaffoldlab.deployment.devices import JointState
from scaffoldlab.deployment.loop import Deployment, DeploymentLimits, RobotHand, tracked_bodies
from scaffoldlab.deployment.udp_robot import UdpRobot
from scaffoldlab.errors import ScaffoldError
from scaffoldlab.planners.making import scripted_library
from scaffoldlab.plans import library
from scaffoldlab.specs.models import load_task
from vlm_server import VlmServer

APPLE = load_task("move_apple")
PLAN = scripted_library(APPLE, count=1, seed=0).plans[0]


class Robot:
    """Is at once where it is told to be; remembers what it was told."""

    def __init__(self, clock: Clock):
        import torch

        self.clock, self.sent, self.frozen_at = clock, [], None
        start = RobotHand(APPLE).start(torch.as_tensor(PLAN.wrist_e[:1], dtype=torch.float32))
        self.position = start[0].numpy().astype(float)

    def state(self) -> JointState | None:
        time = self.clock() if self.frozen_at is None else self.frozen_at
        return JointState(time=time, position=self.position, velocity=0 * self.position)

    def send(self, targets: np.ndarray) -> None:
        self.sent.append(targets.copy())
        self.position = targets.astype(float)

    def close(self) -> None:
        pass


class Tracker:
    """Sees the apple at rest; ``fault`` may say otherwise at times."""

    def __init__(self, clock: Clock):
        self.clock, self.calls = clock, 0
        self.position = PLAN.keypoints_e[0, 0]
        self.fault = lambda call: self.position

    def poll(self) -> dict[str, np.ndarray]:
        self.calls += 1
        position = self.fault(self.calls)
        return {} if position is None else {"apple": pose_in_camera(position)}


@pytest.fixture
def parts():
    clock = Clock()
    return clock, Robot(clock), Tracker(clock)


def deployment(parts, *, policy=lambda observation: np.zeros(7), plan=PLAN, metadata=None, **limits):
    clock, robot, tracker = parts
    return Deployment(
        APPLE, policy=policy, metadata=metadata or metadata_of("move_apple"), plan=plan, robot=robot, tracker=tracker,
        pose_ec=POSE_EC, limits=DeploymentLimits(**limits), clock=clock, sleep=clock.sleep,
    )  # fmt: skip


def test_zero_action_carries_out_the_whole_plan_with_an_open_hand(parts):
    _, robot, _ = parts
    report = deployment(parts).run()
    assert (report.steps, report.holds, report.late, report.ended) == (200, [], 0, "done")
    assert report.seconds == pytest.approx(200 / 60) and len(robot.sent) == 200
    hand = RobotHand(APPLE)
    hand.take(robot.state())
    np.testing.assert_allclose(hand.wrist[0], PLAN.wrist_e[-1], atol=1e-3)  # the last three waypoints are a rest
    np.testing.assert_allclose(robot.position[6:], hand.open, atol=1e-6)


def test_targets_are_averaged_by_the_gamma_of_the_policy(parts):
    """Closing fully from the first step: after n steps 1 - 0.7^n of the way."""
    robot = parts[1]
    start = robot.position[6:].copy()
    metadata = metadata_of("move_apple", action_average=0.7)
    loop = deployment(parts, policy=lambda o: np.array([0, 0, 0, 0, 0, 0, 1.0]), metadata=metadata)
    loop.start()
    for n in range(1, 6):
        loop.tick()
        np.testing.assert_allclose(
            robot.sent[-1][6:] - start, (1 - 0.7**n) * (loop.hand.close.numpy() - start), atol=1e-5
        )


def test_policy_sees_the_tracked_keypoint_and_the_static_one(parts):
    _, _, tracker = parts
    seen = []
    loop = deployment(parts, policy=lambda o: seen.append(o) or np.zeros(7))
    loop.start()
    tracker.position = tracker.position + np.array([0.01, 0.02, 0.03])
    loop.tick()
    ends = np.cumsum(list(loop.metadata.observation_terms.values()))
    terms = dict(zip(loop.metadata.observation_terms, np.split(seen[0], ends[:-1]), strict=True))
    expected = PLAN.keypoints_e[0] + [[0.01, 0.02, 0.03], [0, 0, 0]]
    np.testing.assert_allclose(terms["keypoints"].reshape(2, 3), expected, atol=1e-5)
    np.testing.assert_allclose(terms["initial_keypoints"].reshape(2, 3), PLAN.keypoints_e[0], atol=1e-6)
    first = terms["future_plan"][:6].reshape(2, 3)  # offset 0, seen from now
    np.testing.assert_allclose(first, [[-0.01, -0.02, -0.03], [0, 0, 0]], atol=1e-5)


FAULTS = {  # of 60 looks; a dropped pose is missed only 0.25 s, 15 steps, after the last one
    "dropped": (lambda p, call: None, "no pose of apple for 0.25 s", 45),
    "jumping": (lambda p, call: p + np.array([0.3 * (call % 2 + 1), 0, 0]), "wrong pose of apple: it jumped by", 60),
    "not finite": (lambda p, call: p * np.nan, "wrong pose of apple", 60),
}


@pytest.mark.parametrize("name", FAULTS)
def test_robot_holds_while_poses_fail_says_so_and_goes_on(parts, name, caplog):
    _, robot, tracker = parts
    fault, reason, count = FAULTS[name]
    tracker.fault = lambda call: fault(tracker.position, call) if 50 <= call < 110 else tracker.position
    loop = deployment(parts)
    report = loop.run()
    (hold,) = report.holds
    assert reason in hold.reason and report.steps == 200
    assert len(robot.sent) == 200 + count
    begun = hold.step
    assert begun == 48 + 60 - count  # the loop looks once before its first step
    still = np.array(robot.sent[begun - 1 : begun + count])
    assert (still == still[0]).all() and (robot.sent[begun + count] != still[0]).any()
    assert hold.seconds == pytest.approx(count / 60, abs=1e-3)
    assert f"step {begun}: holding: " in caplog.text and f"step {begun}: going on after" in caplog.text


def test_plan_goes_on_where_it_stood(parts):
    """The targets with a hold in between are those without one."""
    _, robot, tracker = parts
    tracker.fault = lambda call: None if 80 <= call < 160 else tracker.position
    deployment(parts).run()
    clock = Clock()
    other = (clock, Robot(clock), Tracker(clock))
    deployment(other).run()
    kept = [s for i, s in enumerate(robot.sent) if i == 0 or not np.array_equal(s, robot.sent[i - 1])]
    plain = [s for i, s in enumerate(other[1].sent) if i == 0 or not np.array_equal(s, other[1].sent[i - 1])]
    np.testing.assert_allclose(kept, plain, atol=1e-6)


def test_silent_robot_is_held_too(parts):
    clock, robot, _ = parts
    loop = deployment(parts)
    loop.start()
    robot.frozen_at = clock()
    clock.sleep(0.2)
    assert not loop.tick() and loop.report.steps == 0
    robot.frozen_at = None
    assert loop.tick() and loop.report.holds[0].reason == "no joint state for 0.1 s"


def test_patience_ends_and_the_hold_that_was_open_is_reported(parts):
    clock, _, tracker = parts
    tracker.fault = lambda call: None if call > 30 else tracker.position
    loop = deployment(parts, patience=2.0)
    begun = clock()
    with pytest.raises(ScaffoldError, match=r"held at step \d+ for 2 s: no pose of apple for 0.25 s\. The robot holds"):
        loop.run()
    (hold,) = loop.report.holds
    assert (hold.step, hold.reason) == (loop.report.steps, "no pose of apple for 0.25 s")
    assert hold.seconds == pytest.approx(2.0, abs=0.05)
    assert loop.report.ended.startswith(f"gave up: deployment: held at step {hold.step} for 2 s: no pose of apple")
    assert loop.report.seconds == pytest.approx(clock() - begun, abs=0.05)


def test_interrupt_in_a_hold_is_reported(parts):
    _, robot, tracker = parts
    tracker.fault = lambda call: None if call > 30 else tracker.position

    def interrupted(targets):
        if len(robot.sent) == 60:
            raise KeyboardInterrupt
        Robot.send(robot, targets)

    robot.send = interrupted
    loop = deployment(parts)
    with pytest.raises(KeyboardInterrupt):
        loop.run()
    assert loop.report.ended == "interrupted" and loop.report.steps < 60
    assert [(h.step, h.reason) for h in loop.report.holds] == [(loop.report.steps, "no pose of apple for 0.25 s")]


def test_action_that_is_not_finite_is_not_sent_and_reported(parts):
    robot = parts[1]
    loop = deployment(parts, policy=lambda o: np.full(7, np.nan if len(robot.sent) == 20 else 0.0))
    with pytest.raises(ScaffoldError, match=r"step 20: .*\[nan, .*allowed: finite numbers.*export .* again"):
        loop.run()
    assert len(robot.sent) == loop.report.steps == 20
    assert loop.report.ended.startswith("gave up: deployment: step 20: the policy's action is [nan, nan, ")


def test_policy_that_fails_is_reported(parts):
    loop = deployment(parts, policy=lambda o: {}["action"])
    with pytest.raises(KeyError):
        loop.run()
    assert loop.report.ended == "failed: KeyError('action')"


def test_late_steps_are_counted_and_not_caught_up(parts):
    clock, robot, _ = parts

    def slow(observation):
        clock.sleep(0.05 if len(robot.sent) % 10 == 5 else 0.0)
        return np.zeros(7)

    report = deployment(parts, policy=slow).run()
    assert report.late == 20
    assert report.seconds == pytest.approx(180 / 60 + 20 * 0.05, abs=0.05)


def test_loop_does_not_start_where_the_plan_does_not(parts):
    _, robot, tracker = parts
    robot.position[0] += 0.2
    with pytest.raises(ScaffoldError, match=r"hand is 20 cm and 0\.00 rad from where the plan starts"):
        deployment(parts).run()
    robot.position[0] -= 0.2
    tracker.position = tracker.position + np.array([0, 0.12, 0])
    with pytest.raises(ScaffoldError, match=r"keypoint 'apple' is 12 cm from where the plan starts"):
        deployment(parts).run()
    assert robot.sent == []


def test_loop_does_not_start_without_poses(parts):
    parts[2].fault = lambda call: None
    with pytest.raises(ScaffoldError, match=r"not started after 3 s: no pose of apple yet\..* start again"):
        deployment(parts, patience=3.0).run()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"task": "open_drawer"}, "task of the policy"),
        ({"joint_names": ["a"]}, "joints of the policy"),
        ({"keypoint_names": ["pear", "cutting board"]}, "keypoints of the policy"),
        ({"observation_terms": {"keypoint": 6}}, "unknown observation term 'keypoint'. Did you mean 'keypoints'"),
        ({"observation_terms": {"plan_of": 6}}, "unknown observation term 'plan_of'"),
    ],
)
def test_policy_of_another_task_is_refused(parts, changes, words):
    with pytest.raises(ScaffoldError) as error:
        deployment(parts, metadata=metadata_of("move_apple", **changes))
    assert words in str(error.value)


def test_plan_of_another_task_is_refused(parts):
    with pytest.raises(ScaffoldError, match="task of the plan: got open_drawer"):
        deployment(parts, plan=replace(PLAN, task="open_drawer"))


def test_bodies_that_can_move_are_tracked():
    assert tracked_bodies(APPLE, PLAN) == ["apple"]  # the board is static
    drawer = load_task("open_drawer")
    assert tracked_bodies(drawer, scripted_library(drawer, count=1, seed=0).plans[0]) == [drawer.task.keypoints[0].body]


def test_robots_fingertips_are_where_the_published_kinematics_put_them():
    """Forward kinematics of the robot's joints against plain rotation matrices."""
    from allegro import hand_kinematics, matrix_of

    hand = RobotHand(APPLE)
    for seed in range(5):
        joints = np.random.default_rng(seed).uniform(-0.8, 0.8, 22)
        hand.take(JointState(time=0.0, position=joints, velocity=joints))
        chain = hand_kinematics(dict(zip(hand.joint_names, joints, strict=True)))
        for pose, tip in zip(hand.fingertip_poses[0].numpy(), APPLE.robot.fingertips.values(), strict=True):
            np.testing.assert_allclose(pose[:3], chain[tip][0], atol=1e-5)
            np.testing.assert_allclose(matrix_of(pose[3:]), chain[tip][1], atol=1e-5)


# --- the command ----------------------------------------------------------------------------------------------------


class Loopback:
    """What ``scaffoldlab deploy`` touches, in a folder: policy, plans, a capture, a tracker, and a robot behind UDP.

    The policy's action is always zero. The tracker writes a new file again and again, in two pieces, until the robot
    has got ``until`` targets.
    """

    def __init__(self, folder, *, steps: int, until: int = 10**6):
        import onnx
        import torch

        self.folder, self.until = folder, until
        metadata = metadata_of("move_apple", episode_steps=steps)
        weights = onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, (292, 7), np.zeros(292 * 7))
        info = onnx.helper.make_tensor_value_info
        graph = onnx.helper.make_graph(
            [onnx.helper.make_node("MatMul", ["obs", "w"], ["actions"])], "zero",
            [info("obs", 1, (1, 292))], [info("actions", 1, (1, 7))], [weights],
        )  # fmt: skip
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
        onnx.helper.set_model_props(model, metadata.properties())
        onnx.save(model, folder / "policy.onnx")
        scripted_library(APPLE, count=2, seed=0).save(folder / "apples.plans.npz")
        (folder / "track/ob_in_cam").mkdir(parents=True)
        image = kitchen_picture(APPLE, 0, seed=0)  # PLAN starts there
        write_capture(image, folder)
        self.pose_c = pose_in_camera(PLAN.keypoints_e[0, 0], pose_ec=image.camera.pose_ec)
        self.start = RobotHand(APPLE).start(torch.as_tensor(PLAN.wrist_e[:1], dtype=torch.float32))[0].numpy()
        self.server = UdpServer(metadata.joint_names, self.start)

    def __enter__(self):
        self._writer = threading.Thread(target=self._write_poses, daemon=True)
        self._writer.start()
        return self

    def __exit__(self, *_):
        self.server.close()
        self._writer.join()

    @property
    def moved(self) -> float:
        """How far the wrist is from where it was [m]."""
        return float(np.linalg.norm((self.server.positions - self.start)[:3]))

    def deploy(self, *arguments: str) -> int:
        return main(
            ["deploy", "--task", "move_apple", "--policy", "policy.onnx", "--capture", ".", "--tracker", "track",
             "--robot", self.server.address, "--out", "out", *arguments]
        )  # fmt: skip

    def report(self) -> dict:
        return json.loads((self.folder / "out/report.json").read_text())

    def _write_poses(self) -> None:
        text = "\n".join(" ".join(map(str, row)) for row in self.pose_c)
        number = 0
        while self.server._open and len(self.server.targets) < self.until:
            number += 1
            with open(self.folder / f"track/ob_in_cam/{number:05d}.txt", "w") as file:
                file.write(text[:100])
                file.flush()
                time.sleep(0.01)
                file.write(text[100:])
            time.sleep(0.01)


@pytest.fixture
def loopback(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    return lambda **settings: Loopback(tmp_path, **settings)


def test_command_runs_on_loopback(loopback, capfd):
    """Everything that ``scaffoldlab deploy`` touches: files, folders and packets; the clock is the real one."""
    with loopback(steps=30) as bench:
        code = bench.deploy("--plan", "apples.plans.npz:0")
    said = capfd.readouterr().err
    assert code == 0 and "30 steps in" in said, said
    report = bench.report()
    assert (report["ended"], report["steps"]) == ("done", 30) and report["seconds"] > 29 / 60
    assert (bench.folder / "out/plan.png").is_file()
    assert bench.moved > 0.02


def test_command_that_gives_up_writes_its_report_with_the_open_hold(loopback, capfd):
    with loopback(steps=200, until=10) as bench:
        code = bench.deploy("--plan", "apples.plans.npz:0", "--patience", "0.3")
    said = capfd.readouterr().err
    assert code == 1 and "error: deployment: held at step" in said and "report.json" in said
    report = bench.report()
    assert report["ended"].startswith("gave up: deployment: held at step") and 10 <= report["steps"] < 200
    last = report["holds"][-1]  # on a busy machine the joints may be late before the poses are
    assert last["step"] == report["steps"] and last["reason"].startswith("no ") and last["seconds"] >= 0.3


def test_command_that_does_not_come_to_its_loop_writes_why_in_the_place_of_an_earlier_report(
    loopback, monkeypatch, capfd
):
    monkeypatch.setitem(UdpRobot.__init__.__kwdefaults__, "timeout", 0.1)
    plan = ("--plan", "apples.plans.npz:0")
    cases = {
        "udp://127.0.0.1:9: no joint state": (*plan, "--robot", "udp://127.0.0.1:9"),
        "the library has 2 plans; allowed: 0 to 1": ("--plan", "apples.plans.npz:2"),
        "task of the policy": ("--task", "open_drawer", "--planner", "scripted"),
        "policy.txt": (*plan, "--policy", "policy.txt"),
        "no such folder": (*plan, "--tracker", "nowhere"),
        "nowhere/cam_K.txt: missing": (*plan, "--capture", "nowhere"),
        "nothing to plan from after 0.1 s": ("--planner", "scripted", "--patience", "0.1", "--tracker", "out"),
    }
    with loopback(steps=30) as bench:
        (bench.folder / "policy.txt").write_text("no policy")
        report = bench.folder / "out/report.json"
        for words, arguments in cases.items():
            report.parent.mkdir(exist_ok=True)
            report.write_text('{"ended": "done"}')
            assert bench.deploy(*arguments) == 1
            said = capfd.readouterr().err
            assert words in said and "report.json" in said
            assert bench.report()["ended"].startswith("gave up: ") and words in bench.report()["ended"]
            assert (bench.report()["steps"], bench.report()["holds"]) == (0, [])
        assert bench.moved == 0


def test_command_that_does_not_run_the_loop_leaves_no_earlier_report(loopback):
    with loopback(steps=30) as bench:
        report = bench.folder / "out/report.json"
        report.parent.mkdir()
        report.write_text('{"ended": "done"}')
        assert bench.deploy("--plan", "apples.plans.npz:0", "--waypoints", "5") == 1
        assert report.exists()  # a command that cannot be meant touches nothing
        assert bench.deploy("--plan", "apples.plans.npz:0", "--plan-only") == 0
        assert not report.exists()


def test_command_plans_from_the_capture_to_look_at_and_then_carries_it_out(loopback, monkeypatch, capfd):
    """First with a model and without moving the robot, then that plan; a ledger speaks of its own picture only."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with loopback(steps=60) as bench:
        with VlmServer(colours={"apple": RED, "cutting board": WOOD}) as model:
            vlm = ("--planner", "vlm", "--base-url", model.url, "--model", "gemini-loopback", "--plan-only")
            assert bench.deploy(*vlm) == 0
        said = capfd.readouterr().err
        assert "a plan by vlm: out/move_apple.plans.npz\nto carry it out give --plan out/move_apple.plans.npz" in said
        plan = library.PlanLibrary.load("out", task="move_apple").plans[0]
        # The apple carries its keypoint where the model pointed, and the plan starts where the robot is.
        assert 0.02 < np.linalg.norm(plan.keypoints[0].point_b) < 0.042
        np.testing.assert_allclose(plan.wrist_e[0], PLAN.wrist_e[0], atol=1e-5)
        assert (bench.folder / "out/plan.png").is_file() and not (bench.folder / "out/report.json").exists()
        assert bench.deploy("--planner", "replay", "--plan-only") == 0 and bench.moved == 0
        again = library.PlanLibrary.load("out", task="move_apple").plans[0]
        assert again.keypoints == plan.keypoints
        np.testing.assert_array_equal(again.wrist_e, plan.wrist_e)

        (picture,) = (bench.folder / "rgb").glob("*.png")
        with Image.open(picture) as image:
            image.putpixel((0, 0), (255, 0, 255))
            image.save(picture)
        assert bench.deploy("--planner", "replay", "--plan-only") == 1
        assert "are about another picture or another start" in capfd.readouterr().err
        assert bench.report()["ended"].startswith("gave up: deploy: the replies of out/ledger.jsonl are about another")

        code = bench.deploy("--plan", "out/move_apple.plans.npz")
        said = capfd.readouterr().err
        assert code == 0 and "60 steps in" in said, said
        assert bench.report()["ended"] == "done" and bench.moved > 0.02
