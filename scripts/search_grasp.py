"""Searches the grasp of a task: hand pitch, grasp centre and postures, by cross-entropy under wrist noise.

    scripts/run python scripts/search_grasp.py --task move_apple --generations 25

Every candidate follows the oracle's plan with random wrist offsets and closes its fingers at the grasp stage; its
score is the share of trials that succeed, plus a little for how well the keypoints follow their plan, less what the
open hand has moved them by then, and with ``--push`` less how far contacts push the hand off its plan. The fingers bend
alike unless ``--each``; the open hand stays as it is, the thumb's root aside, unless ``--open``. With ``--neutral``
nothing of a posture that the task has already enters the search, but the hand's roll and pitch. Overrides of the env
come last, e.g. ``physics=newton_mjwarp``; a posture has to hold on the other engine too.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import numpy as np
import torch
import yaml
from isaaclab.utils.math import quat_apply, quat_from_euler_xyz

from scaffoldlab.planners.making import scripted_library
from scaffoldlab.specs.models import Composition, load_task
from scaffoldlab.tasks.simulation import open_env
from scaffoldlab.terms.observations import plan_of
from scaffoldlab.usd.reader import joint_limits

if TYPE_CHECKING:
    from isaaclab.envs import ManagerBasedRLEnv

# A candidate is 37 numbers: roll, pitch, grasp centre x y z, then the open and the closed joints of index, middle, ring
# and thumb. The search moves along a few directions in them, each with its own spread.
CENTER, OPEN, CLOSE, THUMB = 2, 5, 21, 12
BENDS, BEND_SPREADS, THUMB_SPREADS = (1, 2, 3), (0.25, 0.3, 0.3), (0.15, 0.25, 0.25, 0.25)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", required=True)
    parser.add_argument("--generations", type=int, default=25)
    parser.add_argument("--candidates", type=int, default=64)
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument("--noise", type=float, default=0.5, help="largest standard deviation of the wrist action")
    parser.add_argument("--neutral", action="store_true", help="begin with a half-closed hand, not with the task's own")
    parser.add_argument("--pitch", type=float, default=None, help="first guess of the hand pitch [deg]")
    parser.add_argument("--roll", action="store_true", help="search the hand roll as well")
    parser.add_argument("--each", action="store_true", help="bend each finger by itself")
    parser.add_argument("--open", action="store_true", help="search the open posture as well")
    parser.add_argument(
        "--clearance", type=float, default=0.0, help="least distance of the grasp centre to the palm [m]"
    )
    parser.add_argument("--beta", type=float, default=20.0, help="how much tracking counts: exp(-beta error) [1/m]")
    parser.add_argument("--push", type=float, default=0.0, help="what it costs if contacts push the hand away [1/m]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("overrides", nargs="*")
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    torch.manual_seed(args.seed)
    composition = load_task(args.task)
    limits = _limits(composition)
    limits[0, CENTER] = args.clearance
    guess = _first_guess(composition, args.pitch)
    if args.neutral:
        guess[CENTER:] = _neutral(limits)
    directions, spread = _directions(roll=args.roll, each=args.each, opened=args.open)
    mean = np.zeros(len(directions))
    with open_env(
        args.task, num_envs=args.candidates * args.trials, device=args.device, overrides=args.overrides
    ) as env:
        for generation in range(args.generations):
            steps = mean + spread * rng.normal(size=(args.candidates, len(mean)))
            steps[0] = mean
            candidates = np.clip(guess + steps @ directions, *limits)
            scores, successes = _evaluate(env, composition, candidates, args, generation)
            elite = steps[np.argsort(-scores)[: max(4, args.candidates // 6)]]
            mean, spread = 0.3 * mean + 0.7 * elite.mean(0), 0.3 * spread + 0.7 * elite.std(0) + 1e-3
            print(
                f"generation {generation}: mean candidate {successes[0]:.2f} (score {scores[0]:.2f}), "
                f"best {successes.max():.2f} ({scores.max():.2f}), all {successes.mean():.2f}",
                flush=True,
            )
    found = np.clip(guess + mean @ directions, *limits)
    print(yaml.safe_dump(_as_yaml(composition, found), sort_keys=False, default_flow_style=None))


def _evaluate(
    env: ManagerBasedRLEnv, composition: Composition, candidates: np.ndarray, args: argparse.Namespace, generation: int
) -> tuple[np.ndarray, np.ndarray]:
    """Scores and success shares of the candidates, shapes (C, 37) -> (C,) and (C,)."""
    trials, device = args.trials, env.device
    plan = plan_of(env)
    robot = plan.robot
    count = len(candidates) * trials
    plan.use(scripted_library(composition, count=count, seed=1000 + generation))
    plan.assign(torch.arange(count, device=device))
    rows = torch.as_tensor(np.repeat(candidates, trials, 0), dtype=torch.float32, device=device)
    plan.wrist_tracks[..., 3:5] = rows[:, None, :2]
    plan.initial_states["hand"][:, 3:5] = rows[:, :2]
    palm_rpy = torch.as_tensor(np.radians(composition.robot.palm_rpy_deg), dtype=torch.float32, device=device)
    robot.center = quat_apply(quat_from_euler_xyz(*palm_rpy.expand(count, 3).T), rows[:, CENTER:OPEN])
    robot.open, robot.close = rows[:, OPEN:CLOSE], rows[:, CLOSE:]
    plan.lenient = True
    env.reset()
    close_at = _close_step(composition, plan.steps)
    score = torch.zeros(count, device=device)
    action = torch.zeros(count, env.action_manager.total_action_dim, device=device)
    # One trial goes without noise: what noise shakes loose may jam without it.
    sigma = torch.linspace(0, args.noise, trials, device=device).repeat(len(candidates))[:, None]
    for step in range(plan.steps - 1):
        action[:, :6] = sigma * torch.randn(count, 6, device=device)
        action[:, 6:] = float(step >= close_at)
        env.step(action)
        score += torch.exp(-args.beta * plan.distance.error) / plan.steps
        score -= args.push * (robot.wrist - plan.wrist_targets)[:, :3].norm(dim=-1) / plan.steps
        if step == close_at:
            score -= 20 * plan.distance.error
    success = plan.succeeded.float()
    score = torch.nan_to_num(score, nan=-100.0)  # an object that was squeezed away too fast for the engine
    both = torch.stack([score + success, success]).view(2, -1, trials).mean(-1).cpu().numpy()
    return both[0], both[1]


def _directions(*, roll: bool, each: bool, opened: bool) -> tuple[np.ndarray, np.ndarray]:
    """Directions of the search, shape (D, 37), and the first spread along each, shape (D,)."""
    found: list[tuple[dict[int, float], float]] = [({0: 1.0}, 0.2)] if roll else []
    found += [({1: 1.0}, 0.2), ({CENTER: 1.0}, 0.012), ({CENTER + 1: 1.0}, 0.015), ({CENTER + 2: 1.0}, 0.015)]
    found += [] if each else [({CLOSE: 1.0, CLOSE + 8: -1.0}, 0.05)]
    for start in (OPEN, CLOSE) if opened else (CLOSE,):
        fingers = [(0,), (4,), (8,)] if each else [(0, 4, 8)]
        found += [
            ({start + root + bend: 1.0 for root in roots}, spread)
            for roots in fingers
            for bend, spread in zip(BENDS, BEND_SPREADS, strict=True)
        ]
        for joint, spread in enumerate(THUMB_SPREADS):
            tied = {OPEN + THUMB: 1.0} if joint == 0 and not opened else {}
            found.append(({start + THUMB + joint: 1.0} | tied, spread))
    directions = np.zeros((len(found), CLOSE + 16))
    for row, (entries, _) in zip(directions, found, strict=True):
        row[list(entries)] = list(entries.values())
    return directions, np.array([spread for _, spread in found])


def _limits(composition: Composition) -> np.ndarray:
    """Least and largest candidate, shape (2, 37): joints within their limits, the rest free."""
    limits = joint_limits(composition.usd(composition.robot.usd))
    joints = np.array([limits[name] for name in composition.robot.finger_joints]).T
    free = np.full((2, OPEN), [[-np.inf], [np.inf]])
    return np.concatenate([free, joints, joints], axis=1)


def _close_step(composition: Composition, steps: int) -> int:
    """Control step at which the stage named ``grasp`` is one third over."""
    done, total = 0.0, composition.task.waypoint_count() - 1
    for stage in composition.task.oracle:
        if stage.name == "grasp":
            return int((done + stage.waypoints / 3) / total * steps)
        done += stage.waypoints
    raise SystemExit(f"task {composition.task.name!r} has no oracle stage named 'grasp'")


def _first_guess(composition: Composition, pitch: float | None) -> np.ndarray:
    grasp, hand = composition.task.grasp, composition.task.initial_state.hand
    degrees = [np.mean(hand.roll_deg), np.mean(hand.pitch_deg) if pitch is None else pitch]
    postures = [a for posture in (grasp.open, grasp.close) for f in composition.robot.fingers for a in posture[f]]
    return np.array([*np.radians(degrees), *grasp.center, *postures])


def _neutral(limits: np.ndarray) -> np.ndarray:
    """Grasp centre before the palm, straight fingers and half-bent ones that do not spread, shape (35,)."""
    bent = limits[1, CLOSE:] / 2
    bent[:THUMB:4] = 0
    return np.concatenate([(0.03, 0, 0.09), np.clip(0, *limits[:, OPEN:CLOSE]), bent])


def _as_yaml(composition: Composition, found: np.ndarray) -> dict:
    postures = {}
    for posture, start in (("open", OPEN), ("close", CLOSE)):
        joints = iter(found[start : start + 16].tolist())
        postures[posture] = {
            finger: [round(next(joints), 3) for _ in names] for finger, names in composition.robot.fingers.items()
        }
    return {
        "roll_deg": round(float(np.degrees(found[0])), 1),
        "pitch_deg": round(float(np.degrees(found[1])), 1),
        "center": [round(float(a), 4) for a in found[CENTER:OPEN]],
        **postures,
    }


if __name__ == "__main__":
    main()
