"""The deployment loop beside the env: the same observations and targets, and an arm that does the task through UDP."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from episodes import start, to_numpy

from deployments import POSE_EC, Clock, UdpServer, metadata_of
from scaffoldlab.camera import Camera, RgbdImage
from scaffoldlab.deployment.devices import JointState
from scaffoldlab.deployment.export import policy_metadata
from scaffoldlab.deployment.loop import Deployment, tracked_bodies
from scaffoldlab.deployment.planning import plan_from_capture
from scaffoldlab.deployment.tracker import ObInCamFolder
from scaffoldlab.deployment.udp_robot import UdpRobot
from scaffoldlab.geometry import pose_apply
from scaffoldlab.planners.making import scripted_library
from scaffoldlab.planners.scripted import ScriptedPlanner
from scaffoldlab.specs.models import load_task
from scaffoldlab.terms.observations import plan_of


class EnvRobot:
    """The robot of one env; it is stepped elsewhere."""

    def __init__(self, env, number: int, clock: Clock):
        self.robot, self.number, self.clock, self.sent = plan_of(env).robot, number, clock, []

    def state(self) -> JointState:
        position, velocity = (to_numpy(a[self.number]) for a in (self.robot.joint_pos, self.robot.joint_vel))
        return JointState(time=self.clock(), position=position, velocity=velocity)

    def send(self, targets: np.ndarray) -> None:
        self.sent.append(targets.copy())

    def close(self) -> None:
        pass


class EnvTracker:
    """A tracker that knows where the bodies of one env are."""

    def __init__(self, env, number: int, bodies: list[str]):
        self.plan, self.number, self.bodies = plan_of(env), number, bodies

    def poll(self) -> dict[str, np.ndarray]:
        self.plan._refresh()
        found = {}
        for body in self.bodies:
            pose = to_numpy(self.plan.body_poses[self.number, self.plan.body_column(body)])
            matrix = np.eye(4)
            matrix[:3] = np.c_[pose_apply(pose, np.eye(3)).T - pose[:3, None], pose[:3]]
            found[body] = np.linalg.inv(POSE_EC) @ matrix
        return found


def loop_of(env, number: int, *, robot, policy, clock: Clock) -> Deployment:
    plan = plan_of(env)
    composition = load_task(plan.cfg.task)
    made = plan.library.plans[number]
    tracker = EnvTracker(env, number, tracked_bodies(composition, made))
    return Deployment(
        composition, policy=policy, metadata=policy_metadata(env, plan.cfg.task), plan=made, robot=robot,
        tracker=tracker, pose_ec=POSE_EC, clock=clock, sleep=clock.sleep,
    )  # fmt: skip


@pytest.mark.parametrize("task", ["move_apple", "open_drawer"])
def test_metadata_of_an_env_are_those_of_the_documentation(simulation, task):
    env = simulation.env(task, num_envs=4, overrides=("physics=ovphysx",))  # as the next test has it open
    assert policy_metadata(env, task) == metadata_of(task)


@pytest.mark.parametrize("engine", ["ovphysx", "newton_mjwarp"])
@pytest.mark.parametrize("task", ["move_apple", "open_drawer"])
def test_loop_sees_and_sends_what_the_env_does(simulation, task, engine):
    """Random actions that close the hand on the object: every number of the observation, and every joint target."""
    env = simulation.env(task, num_envs=4, overrides=(f"physics={engine}",))
    plan, observations = start(env)
    clock, seen = Clock(), [[] for _ in range(4)]
    actions = torch.zeros(4, 7)

    def policy(number):
        return lambda observation: seen[number].append(observation) or actions[number].numpy()

    robots = [EnvRobot(env, number, clock) for number in range(4)]
    loops = [loop_of(env, n, robot=robots[n], policy=policy(n), clock=clock) for n in range(4)]
    for loop in loops:
        loop.start()
    generator = torch.Generator().manual_seed(0)
    for step in range(120):
        actions[:] = torch.cat([0.7 * torch.randn(4, 6, generator=generator), torch.full((4, 1), step / 90)], 1)
        for loop in loops:
            assert loop.tick(), loop._sense()
        expected = to_numpy(observations["policy"])
        got = np.array([row[-1] for row in seen])
        names, sizes = zip(*loops[0].metadata.observation_terms.items(), strict=True)
        for name, a, b in zip(
            names, np.split(got, np.cumsum(sizes)[:-1], 1), np.split(expected, np.cumsum(sizes)[:-1], 1), strict=True
        ):
            np.testing.assert_allclose(a, b, atol=1e-4, err_msg=f"step {step}, {name}")
        observations, *_ = env.step(actions)
        np.testing.assert_allclose([r.sent[-1] for r in robots], to_numpy(plan.robot.target), atol=1e-5)
        clock.sleep(1 / 60)


class PoseWriter:
    """A tracker's program: writes the poses of one env's body to files, and the newest is only half there.

    Args:
        folder: Where to.
        poses: Where the bodies are.
        late: Frames of which none comes.
        wrong: Frames in which the body is seen 30 cm away.
    """

    def __init__(self, folder: Path, poses: EnvTracker, *, late: range, wrong: range):
        self.folder, self.poses, self.late, self.wrong = folder / "ob_in_cam", poses, late, wrong
        self.frame, self._unfinished = 0, None
        self.folder.mkdir(parents=True)

    def write(self) -> None:
        """The rest of the last file, and the first half of the next one; every fifth is dropped."""
        self.frame += 1
        if self._unfinished:
            path, text = self._unfinished
            path.write_text(text)
        self._unfinished = None
        if self.frame in self.late or self.frame % 5 == 0:
            return
        ((_, pose),) = self.poses.poll().items()
        pose[0, 3] += 0.3 * (self.frame in self.wrong)
        text = "\n".join(" ".join(map(str, row)) for row in pose)
        self._unfinished = self.folder / f"{self.frame:06d}.txt", text
        self._unfinished[0].write_text(text[: len(text) // 2])


def test_arm_does_the_task_through_udp_and_holds_while_its_tracker_fails(simulation, monkeypatch, tmp_path, caplog):
    """Four simulated arms: joints go out and targets come in as packets, poses as files, and nothing else moves them.

    Each plan is made from what robot and tracker say at the start, and the policy is the scripted grasp. All trackers
    drop frames. All but the first are silent for half a second, before, in or after the grasp, and later see the
    apple somewhere else: the arm stands still, says why, goes on, and does the task.
    """
    task, count = "move_apple_arm", 4
    composition = load_task(task)
    env = simulation.env(task, num_envs=count)
    library = scripted_library(composition, count=count, seed=3)
    plan, _ = start(env, library=library)
    steps = plan.steps - 40  # the episode goes on while a robot holds
    metadata = policy_metadata(env, task).model_copy(update={"episode_steps": steps})
    camera = Camera(np.array([[120, 0, 80], [0, 120, 60], [0, 0, 1]]), POSE_EC, 160, 120)
    image = RgbdImage(np.zeros((120, 160, 3), np.uint8), np.zeros((120, 160)), camera)  # the oracle looks at poses
    clock, bodies = Clock(), tracked_bodies(composition)
    servers = [UdpServer(plan.robot.joint_names, to_numpy(joints), moves=False) for joints in plan.robot.joint_pos]
    writers, loops = [], []
    for number, server in enumerate(servers):
        server.velocities[:] = 0
        late, wrong = (range(70 * number + 10, 70 * number + 40), range(320, 328)) if number else (range(0), range(0))
        writers.append(PoseWriter(tmp_path / str(number), EnvTracker(env, number, bodies), late=late, wrong=wrong))
        robot = UdpRobot(server.address, plan.robot.joint_names, clock=clock)
        tracker = ObInCamFolder(tmp_path / str(number), bodies)
        writers[-1].write()
        writers[-1].write()
        made, _ = plan_from_capture(
            composition, ScriptedPlanner(composition.task.oracle), camera=SimpleNamespace(capture=lambda: image),
            tracker=tracker, robot=robot, steps=steps, clock=clock, sleep=clock.sleep,
        )  # fmt: skip
        np.testing.assert_allclose(made.keypoints_e, library.plans[number].keypoints_e, atol=3e-3)
        np.testing.assert_allclose(made.wrist_e, library.plans[number].wrist_e, atol=3e-3)
        policy = lambda observation, n=number: np.r_[np.zeros(6), float(loops[n].report.steps >= 0.40 * steps)]  # noqa: E731
        loop = Deployment(
            composition, policy=policy, metadata=metadata, plan=made, robot=robot, tracker=tracker, pose_ec=POSE_EC,
            clock=clock, sleep=clock.sleep,
        )  # fmt: skip
        writers[-1].write()
        loop.start()
        loops.append(loop)
    term = env.action_manager.get_term("hand")
    monkeypatch.setattr(term.residual, "gamma", 1.0)  # only the packets move the hand
    before = [{}] * count
    for step in range(1, plan.steps):
        for number, loop in enumerate(loops):
            if loop.report.steps == steps:
                continue
            went_on, targets = loop.tick(), servers[number].wait(step)
            assert went_on or targets == before[number]
            before[number] = targets
            plan.robot.target[number] = torch.tensor([targets[name] for name in plan.robot.joint_names])
        with torch.inference_mode():
            env.step(torch.zeros(count, env.action_manager.total_action_dim))
        clock.sleep(1 / 60)
        for number, server in enumerate(servers):
            server.positions, server.velocities = (
                to_numpy(a[number]) for a in (plan.robot.joint_pos, plan.robot.joint_vel)
            )
            server.push()
            writers[number].write()
    for number, (loop, server) in enumerate(zip(loops, servers, strict=True)):
        loop.robot.close()
        server.close()
        reasons = [hold.reason for hold in loop.report.holds]
        assert reasons == (["no pose of apple for 0.25 s", "wrong pose of apple: it jumped by 30 cm"] if number else [])
        assert loop.report.steps == steps
    assert "holding: no pose of apple for 0.25 s" in caplog.text and "going on after" in caplog.text
    assert plan.succeeded.sum() >= count - 1
