"""The deployment loop beside the env: the same observations and targets, and the task done through UDP."""

import numpy as np
import pytest
import torch
from episodes import CLOSE, run, start, to_numpy

from deployments import POSE_EC, Clock, UdpServer, metadata_of
from scaffoldlab.deployment.devices import JointState
from scaffoldlab.deployment.export import policy_metadata
from scaffoldlab.deployment.loop import Deployment, tracked_bodies
from scaffoldlab.deployment.udp_robot import UdpRobot
from scaffoldlab.geometry import pose_apply
from scaffoldlab.planners.making import scripted_library
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
    env = simulation.env(task, num_envs=4)
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


@pytest.mark.parametrize(("task", "seed"), [("move_apple", 3), ("open_drawer", 3)])
def test_task_is_done_through_udp_as_it_is_in_the_env(simulation, monkeypatch, task, seed):
    """Eight envs are the robots: their joints go out and targets come in as packets, and nothing else moves them.

    The policy is the scripted grasp. It succeeds as often as in the env by itself.
    """
    count = 8
    env = simulation.env(task, num_envs=count)
    library = scripted_library(load_task(task), count=count, seed=seed)
    plan, observations = start(env, library=library)
    run(env, plan, observations, CLOSE)
    expected = int(plan.succeeded.sum())
    assert expected >= 0.7 * count

    plan, _ = start(env, library=library)
    clock = Clock()
    servers = [UdpServer(plan.robot.joint_names, to_numpy(joints), moves=False) for joints in plan.robot.joint_pos]
    for server in servers:
        server.velocities[:] = 0
    close_at = int(np.ceil(0.40 * plan.steps))
    loops = []
    for number, server in enumerate(servers):
        robot = UdpRobot(server.address, plan.robot.joint_names, clock=clock)
        policy = lambda observation, n=number: np.r_[np.zeros(6), float(loops[n].report.steps >= close_at)]  # noqa: E731
        loops.append(loop_of(env, number, robot=robot, policy=policy, clock=clock))
        loops[-1].start()
    term = env.action_manager.get_term("hand")
    monkeypatch.setattr(term.residual, "gamma", 1.0)  # only the packets move the hand
    for step in range(1, plan.steps):
        for number, loop in enumerate(loops):
            assert loop.tick()
            targets = servers[number].wait(step)
            plan.robot.target[number] = torch.tensor([targets[name] for name in plan.robot.joint_names])
        with torch.inference_mode():
            env.step(torch.zeros(count, env.action_manager.total_action_dim))
        clock.sleep(1 / 60)
        for number, server in enumerate(servers):
            server.positions, server.velocities = (
                to_numpy(a[number]) for a in (plan.robot.joint_pos, plan.robot.joint_vel)
            )
            server.push()
    for loop, server in zip(loops, servers, strict=True):
        assert loop.report.holds == [] and loop.report.steps == plan.steps - 1
        loop.robot.close()
        server.close()
    assert abs(int(plan.succeeded.sum()) - expected) <= 1
