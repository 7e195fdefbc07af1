"""How much of the simulator's speed is left with all of our terms: the full env against a bare one.

Both run the same scene, physics and joint targets from the same initial states: the full env follows the oracle's
plans with a timed close and records its joint targets, the bare env (no command, reward, termination or observation
of ours) replays them. They take turns in processes of their own, so that the machine's noise hits both.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

NUM_ENVS, ROUNDS, EPISODES = 256, 3, 2


def env_throughput(task: str = "move_apple") -> dict:
    """Env-steps per second of both and their ratio, medians over the rounds."""
    speeds: dict[str, list[float]] = {"full": [], "bare": []}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(ROUNDS):
            for part, found in speeds.items():
                command = [sys.executable, __file__, "--part", part, "--task", task, "--trace", f"{folder}/trace.npz"]
                done = subprocess.run(command, capture_output=True, text=True)
                if done.returncode:
                    raise SystemExit(f"benchmark part {part!r} failed:\n{done.stderr[-2000:]}")
                found.append(float(done.stdout.split("STEPS_PER_SECOND")[1].split()[0]))
    full, bare = median(speeds["full"]), median(speeds["bare"])
    return {
        "env_throughput_ratio": full / bare,
        "full_steps_per_second": full,
        "bare_steps_per_second": bare,
        "num_envs": NUM_ENVS,
        "rounds": speeds,
    }


def _full(task: str, trace: Path) -> float:
    import numpy as np
    import torch

    from scaffoldlab.evaluation.rollout import timed_close
    from scaffoldlab.tasks.simulation import open_env
    from scaffoldlab.terms.observations import plan_of

    policy, targets, scene, seconds = timed_close(0.4), [], {}, 0.0
    with open_env(task, num_envs=NUM_ENVS, seed=0) as env, torch.inference_mode():
        plan = plan_of(env)
        plan.assign(torch.arange(NUM_ENVS, device=env.device) % len(plan.library))
        for _ in range(EPISODES):
            observations, _ = env.reset()
            scene = {
                "joints": plan.robot.joint_pos.clone(),
                "roots": {n: a.data.root_link_pose_w.torch.clone() for n, a in env.scene.rigid_objects.items()},
            }
            targets = []
            started = time.perf_counter()
            for _ in range(plan.steps - 1):
                observations, *_ = env.step(policy(observations, plan))  # type: ignore[arg-type]
                targets.append(plan.robot.target.clone())
            seconds += time.perf_counter() - started
        np.savez(trace, targets=torch.stack(targets), joints=scene["joints"], **scene["roots"])
        return EPISODES * (plan.steps - 1) * NUM_ENVS / seconds


def _bare(task: str, trace: Path) -> float:
    import isaaclab.envs.mdp as mdp
    import numpy as np
    import torch
    from isaaclab.managers import ObservationGroupCfg, ObservationTermCfg, TerminationTermCfg
    from isaaclab.utils import configclass

    from scaffoldlab.specs.models import load_task
    from scaffoldlab.tasks.simulation import make_cfg, open_cfg

    robot = load_task(task).robot

    @configclass
    class Empty:
        pass

    @configclass
    class Actions:
        joints = mdp.JointPositionActionCfg(
            asset_name="robot", joint_names=robot.wrist_joints + robot.finger_joints, preserve_order=True,
            use_default_offset=False,
        )  # fmt: skip

    @configclass
    class Policy(ObservationGroupCfg):
        joint_pos = ObservationTermCfg(func=mdp.joint_pos)

    @configclass
    class Observations:
        policy: Policy = Policy()

    @configclass
    class Terminations:
        time_out = TerminationTermCfg(func=mdp.time_out, time_out=True)

    cfg = make_cfg(task, num_envs=NUM_ENVS, seed=0)
    cfg.commands, cfg.rewards, cfg.curriculum, cfg.events = Empty(), Empty(), Empty(), Empty()
    cfg.actions, cfg.observations, cfg.terminations = Actions(), Observations(), Terminations()
    recorded = {name: torch.as_tensor(array) for name, array in np.load(trace).items()}
    seconds = 0.0
    with open_cfg(cfg, load_task(task).task.env_id) as env, torch.inference_mode():
        asset = env.scene["robot"]
        joints, _ = asset.find_joints(robot.wrist_joints + robot.finger_joints, preserve_order=True)
        for _ in range(EPISODES):
            env.reset()
            start = recorded["joints"]
            asset.write_joint_state_to_sim_index(position=start, velocity=torch.zeros_like(start), joint_ids=joints)
            for name, other in env.scene.rigid_objects.items():
                other.write_root_pose_to_sim_index(root_pose=recorded[name])
                other.write_root_velocity_to_sim_index(root_velocity=torch.zeros(NUM_ENVS, 6))
            started = time.perf_counter()
            for target in recorded["targets"]:
                env.step(target)
            seconds += time.perf_counter() - started
    return EPISODES * len(recorded["targets"]) * NUM_ENVS / seconds


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="move_apple")
    parser.add_argument("--part", choices=["full", "bare"])
    parser.add_argument("--trace", type=Path)
    args = parser.parse_args()
    if args.part:
        print("STEPS_PER_SECOND", (_full if args.part == "full" else _bare)(args.task, args.trace))
    else:
        print(json.dumps(env_throughput(args.task), indent=2))
