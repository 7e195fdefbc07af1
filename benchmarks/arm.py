"""How far a stopwatch gets with the hand on the KUKA arm: scripts/run python benchmarks/arm.py

The paper's three twins of the real robot and Move Apple, each with ``robot: iiwa_allegro`` and episodes twice as long
(Scaffolds, appendix C.5). Writes docs/numbers/arm.md.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
TASKS = ("move_apple", "place_bottle", "slide_box", "hammer_three_times")


def main() -> None:
    rows, where = [], ""
    for task in TASKS:
        # A process holds one simulation.
        done = subprocess.run([sys.executable, __file__, task], capture_output=True, text=True, check=True)
        *_, where, row = done.stdout.strip().splitlines()
        rows.append(row)
    text = (
        f"`scripts/run python benchmarks/arm.py`: {where}, oracle plans without noise, 50 unseen initial states.\n\n"
        "| task on iiwa 14 + Allegro | best timed close | zero action |\n|---|---|---|\n" + "\n".join(rows) + "\n"
    )
    (ROOT / "docs/numbers/arm.md").write_text(text)
    print(text)


def measure(task: str, count: int = 50) -> None:
    """Prints where it ran, and a row of the table."""
    with tempfile.TemporaryDirectory() as folder:
        data = yaml.safe_load((ROOT / "tasks" / task / "task.yaml").read_text())
        data |= {"robot": "iiwa_allegro", "episode_steps": 2 * data["episode_steps"]}
        path = Path(folder) / "tasks" / f"arm_{task}" / "task.yaml"
        path.parent.mkdir(parents=True)
        path.write_text(yaml.safe_dump(data))
        os.environ["SCAFFOLDLAB_PATH"] = folder  # before the tasks are registered
        from scaffoldlab.errors import ScaffoldError
        from scaffoldlab.evaluation.rollout import TIMED_CLOSES, run_episodes, zero_action
        from scaffoldlab.planners.making import scripted_library, split_seed
        from scaffoldlab.specs.models import load_task
        from scaffoldlab.tasks.simulation import open_env, physics_name

        name = f"arm_{task}"
        library = scripted_library(load_task(name), count=count, seed=split_seed(task, "test"))
        policies = {"zero action": zero_action, **TIMED_CLOSES}
        with open_env(name, num_envs=count * len(policies), seed=0) as env:
            try:
                rates = {e.policy: e.success_rate for e in run_episodes(env, library, policies)}
            except ScaffoldError:  # says which pose
                print(f"{physics_name(env.cfg)} on {env.device}\n| {task} | out of reach | |", flush=True)
                os._exit(0)
            zero = rates.pop("zero action")
            print(f"{physics_name(env.cfg)} on {env.device}")
            print(f"| {task} | {max(rates.values()):.0%} | {zero:.0%} |", flush=True)
            os._exit(0)  # closing an engine can take its time


if __name__ == "__main__":
    measure(sys.argv[1]) if len(sys.argv) > 1 else main()
