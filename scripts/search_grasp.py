"""Searches the grasp of a task: hand pitch, grasp centre and closed posture, by cross-entropy under wrist noise.

    scripts/run python scripts/search_grasp.py --task move_apple --generations 25

Every candidate follows the oracle's plan with random wrist offsets and closes its fingers at the grasp stage; its
score is the share of trials that succeed, plus a little for how far the first keypoint follows its plan.
"""

import argparse

import numpy as np
import torch
import yaml
from isaaclab.utils.math import quat_apply, quat_from_euler_xyz

from scaffoldlab.planners.making import scripted_library
from scaffoldlab.specs.models import load_task
from scaffoldlab.tasks.simulation import open_env

# pitch, grasp centre x y z, spread, proximal, medial, distal, four of the thumb
_THUMB_LIMITS = np.array([[0.3, 0.0, 0.0, 0.0], [1.35, 1.16, 1.6, 1.7]])
SPREAD = np.array([0.2, 0.012, 0.015, 0.015, 0.05, 0.25, 0.3, 0.3, 0.15, 0.25, 0.25, 0.25])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", required=True)
    parser.add_argument("--generations", type=int, default=25)
    parser.add_argument("--candidates", type=int, default=64)
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument("--noise", type=float, default=0.5, help="standard deviation of the wrist action")
    parser.add_argument("--pitch", type=float, default=None, help="first guess of the hand pitch [deg]")
    parser.add_argument(
        "--clearance", type=float, default=0.0, help="least distance of the grasp centre to the palm [m]"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("overrides", nargs="*")
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    torch.manual_seed(args.seed)
    composition = load_task(args.task)
    mean, spread = _first_guess(composition, args.pitch), SPREAD.copy()
    with open_env(
        args.task, num_envs=args.candidates * args.trials, device=args.device, overrides=args.overrides
    ) as env:
        for generation in range(args.generations):
            candidates = mean + spread * rng.normal(size=(args.candidates, len(mean)))
            candidates[0] = mean
            candidates[:, 1] = np.maximum(candidates[:, 1], args.clearance)
            candidates[:, 8:] = np.clip(candidates[:, 8:], *_THUMB_LIMITS)
            scores, successes = _evaluate(env, composition, candidates, args.trials, args.noise, generation)
            elite = candidates[np.argsort(-scores)[: max(4, args.candidates // 6)]]
            mean, spread = 0.3 * mean + 0.7 * elite.mean(0), 0.3 * spread + 0.7 * elite.std(0) + 1e-3
            print(
                f"generation {generation}: mean candidate {successes[0]:.2f}, best {successes.max():.2f}, "
                f"all {successes.mean():.2f}",
                flush=True,
            )
    print(yaml.safe_dump(_as_yaml(composition, mean), sort_keys=False))


def _evaluate(env, composition, candidates, trials, noise, generation):
    """Scores and success shares of the candidates, shapes (C,) and (C,)."""
    plan = env.command_manager.get_term("plan")
    robot = plan.robot
    count = len(candidates) * trials
    plan.use(scripted_library(composition, count=count, seed=1000 + generation))
    plan.assign(torch.arange(count))
    rows = torch.as_tensor(np.repeat(candidates, trials, 0), dtype=torch.float32)
    pitch = rows[:, 0]
    plan.wrist_tracks[..., 4] = pitch[:, None]
    plan.initial_states["hand"][:, 4] = pitch
    palm = quat_from_euler_xyz(*(torch.full((count,), a) for a in np.radians(composition.robot.palm_rpy_deg)))
    robot.center = quat_apply(palm, rows[:, 1:4])
    robot.close = _postures(rows[:, 4:])
    robot.open = robot.open.expand(count, -1).clone() if robot.open.ndim == 1 else robot.open
    robot.open[:, 12] = rows[:, 8]
    plan.distance.delta.fill_(10.0)
    env.termination_manager.get_term_cfg("tracking_lost").params.clear()
    env.reset()
    close_at = _close_step(composition, plan.steps)
    score = torch.zeros(count)
    action = torch.zeros(count, env.action_manager.total_action_dim)
    for step in range(plan.steps - 1):
        action[:, :6] = noise * torch.randn(count, 6)
        action[:, 6:] = float(step >= close_at)
        env.step(action)
        plan.distance.delta.fill_(10.0)
        score += torch.exp(-20 * plan.distance.distance[:, 0]) / plan.steps
    success = plan.succeeded.float()
    both = torch.stack([score + success, success]).view(2, -1, trials).mean(-1).numpy()
    return both[0], both[1]


def _postures(rows: torch.Tensor) -> torch.Tensor:
    """Closed joint positions of spread, three finger angles and four thumb angles, shape (N, 8) -> (N, 16)."""
    spread, bends, thumb = rows[:, :1], rows[:, 1:4], rows[:, 4:]
    return torch.cat([spread, bends, 0 * spread, bends, -spread, bends, thumb], -1)


def _close_step(composition, steps: int) -> int:
    """Control step at which the stage named ``grasp`` is one third over."""
    done, total = 0.0, composition.task.waypoint_count() - 1
    for stage in composition.task.oracle:
        if stage.name == "grasp":
            return int((done + stage.waypoints / 3) / total * steps)
        done += stage.waypoints
    raise SystemExit(f"task {composition.task.name!r} has no oracle stage named 'grasp'")


def _first_guess(composition, pitch: float | None) -> np.ndarray:
    grasp, hand = composition.task.grasp, composition.task.initial_state.hand
    degrees = np.mean(hand.pitch_deg) if pitch is None else pitch
    index, thumb = grasp.close["index"], grasp.close["thumb"]
    return np.array([np.radians(degrees), *grasp.center, index[0], *index[1:], *thumb])


def _as_yaml(composition, mean: np.ndarray) -> dict:
    joints = _postures(torch.as_tensor(mean[None, 4:], dtype=torch.float32))[0].tolist()
    close, start = {}, 0
    for finger, names in composition.robot.fingers.items():
        close[finger] = [round(a, 3) for a in joints[start : start + len(names)]]
        start += len(names)
    return {
        "pitch_deg": round(float(np.degrees(mean[0])), 1),
        "center": [round(float(a), 4) for a in mean[1:4]],
        "close": close,
    }


if __name__ == "__main__":
    main()
