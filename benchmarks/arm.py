"""How far a stopwatch gets with the hand on the KUKA arm: scripts/run python benchmarks/arm.py

Move Apple and the paper's three twins of the real robot. Writes docs/numbers/arm.md.
"""

import os
import subprocess
import sys
from pathlib import Path

from scaffoldlab.evaluation.episodes import ZERO_ACTION
from scaffoldlab.evaluation.rollout import BASELINES, run_episodes
from scaffoldlab.planners.making import scripted_library, split_seed
from scaffoldlab.specs.models import load_task
from scaffoldlab.tasks.simulation import make_cfg, open_cfg, physics_name

TASKS = ("move_apple_arm", "place_bottle_arm", "slide_box_arm", "hammer_three_times_arm")
COUNT = 50


def main() -> None:
    rows, where = [], ""
    for task in TASKS:
        # A process holds one simulation.
        done = subprocess.run([sys.executable, __file__, task], capture_output=True, text=True, check=True)
        where, row = (line[2:] for line in done.stdout.splitlines() if line.startswith("> "))
        rows.append(row)
    text = (
        f"`scripts/run python benchmarks/arm.py`: {where}, oracle plans without noise, {COUNT} unseen initial states."
        "\n\n| task on iiwa 14 + Allegro | best timed close | zero action |\n|---|---|---|\n" + "\n".join(rows) + "\n"
    )
    (Path(__file__).parents[1] / "docs/numbers/arm.md").write_text(text)
    print(text)


def measure(task: str) -> None:
    """Prints where it ran, and a row of the table."""
    library = scripted_library(load_task(task), count=COUNT, seed=split_seed(task, "test"))
    cfg = make_cfg(task, num_envs=COUNT * len(BASELINES), seed=0)
    print(f"> {physics_name(cfg)} on {cfg.sim.device}")
    with open_cfg(cfg, load_task(task).task.env_id) as env:
        rates = {e.policy: e.success_rate for e in run_episodes(env, library, BASELINES)}
        zero = rates.pop(ZERO_ACTION)
        print(f"> | {task} | {max(rates.values()):.0%} | {zero:.0%} |", flush=True)
        os._exit(0)  # closing an engine can take its time


if __name__ == "__main__":
    measure(sys.argv[1]) if len(sys.argv) > 1 else main()
