"""How far a stopwatch gets under waypoint noise: scripts/run python benchmarks/timed_close.py move_apple 0 0.015 0.03

Writes docs/numbers/timed_close_TASK.md. It is the baseline that a learned policy has to beat.
"""

import argparse
from pathlib import Path

from scaffoldlab.evaluation.rollout import BASELINES, run_episodes
from scaffoldlab.planners.making import scripted_library, split_seed
from scaffoldlab.specs.models import load_task
from scaffoldlab.tasks.simulation import open_env, physics_name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task")
    parser.add_argument("noise", type=float, nargs="+", help="standard deviations of the waypoint noise [m]")
    args = parser.parse_args()
    rows = []
    with open_env(args.task, num_envs=100 * len(BASELINES), seed=0) as env:
        where = f"{physics_name(env.cfg)} on {env.device}"
        for noise in args.noise:
            seed = split_seed(args.task, "test")
            library = scripted_library(load_task(args.task), count=100, seed=seed, noise=noise)
            rates = [e.success_rate for e in run_episodes(env, library, BASELINES)]
            rows.append([f"{100 * noise:g} cm", *(f"{rate:.0%}" for rate in rates)])
    header = ["noise", *BASELINES]
    lines = [
        f"`scripts/run python benchmarks/timed_close.py {args.task} {' '.join(map(str, args.noise))}`: {where}, oracle "
        "plans with waypoint noise, 100 unseen initial states, one trial each.",
        "",
        *(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows)),
    ]
    path = Path(__file__).parents[1] / f"docs/numbers/timed_close_{args.task}.md"
    path.write_text("\n".join(lines) + "\n")
    print(path.read_text())


if __name__ == "__main__":
    main()
