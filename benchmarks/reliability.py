"""Runs the whole job for several seeds and writes the table: scripts/run python benchmarks/reliability.py [NAME ...]

Names are the rows of ``CASES``. Each run is ``scaffoldlab demo`` in a folder of its own below outputs/reliability;
a finished one is read instead of run again. The tables are docs/numbers/NAME.md.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

CASES = {
    "move_apple": {"task": "move_apple", "noise": 0.0, "minutes": 3.5, "seeds": (0, 1, 2)},
    "open_drawer_noise_3cm": {"task": "open_drawer", "noise": 0.03, "minutes": 2.0, "seeds": (0, 1, 2)},
    "move_apple_noise_1.5cm": {"task": "move_apple", "noise": 0.015, "minutes": 10.0, "seeds": (0,)},
    "move_apple_noise_5cm": {
        "task": "move_apple", "noise": 0.05, "minutes": 10.0, "seeds": (0,),
        # The plan itself is further off than the usual tolerance.
        "overrides": ("env.commands.plan.threshold=0.3", "env.curriculum.threshold.params.final_fraction=1.0",
                      "env.commands.plan.beta=15"),
    },
}  # fmt: skip
ROOT = Path(__file__).parents[1]
OUT, TABLES = ROOT / "outputs/reliability", ROOT / "docs/numbers"
COLUMNS = {
    "seed": "{seed}",
    "success (deterministic)": "{success_rate:.0%} ± {success_stderr:.1%}",
    "sampled": "{sampled_success_rate:.0%}",
    "zero action": "{zero_action_success_rate:.0%}",
    "best timed close": "{best_timed_close_success_rate:.0%}",
    "training": "{training_env_steps:,} steps, {training_wall_seconds:.0f} s",
    "whole run": "{run_seconds:.0f} s",
    "peak memory": "{peak_memory_gb:.1f} GB",
}


def run_case(name: str) -> list[dict]:
    """Runs all seeds of a case and returns their metrics."""
    return [_run(name, seed, **{k: v for k, v in CASES[name].items() if k != "seeds"}) for seed in CASES[name]["seeds"]]


def _run(name: str, seed: int, *, task: str, noise: float, minutes: float, overrides: tuple[str, ...] = ()) -> dict:
    folder = OUT / name / f"seed{seed}"
    done = folder / "reliability.json"
    if done.is_file():
        return json.loads(done.read_text())
    command = [sys.executable, "-m", "scaffoldlab", "demo", "--fresh", "--task", task, "--noise", str(noise),
               "--minutes", str(minutes), "--seed", str(seed), "--out", str(folder), *overrides]  # fmt: skip
    print(" ".join(command[2:]), flush=True)
    started = time.monotonic()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{name}, seed {seed}: the demo failed, see {folder / 'console.log'}")
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics |= {"run_seconds": time.monotonic() - started, "peak_memory_gb": usage.ru_maxrss / 2**20}
    done.write_text(json.dumps(metrics, indent=2))
    return metrics


def write_table(name: str, runs: list[dict]) -> Path:
    """Writes the Markdown table of a case."""
    first, case = runs[0], CASES[name]
    lines = [
        f"`scripts/run python benchmarks/reliability.py {name}`: {first['task']}, plans: {first['plan_source']}, "
        f"{first['physics']} on {first['device']}, {len(os.sched_getaffinity(0))} cores, {first['episodes']} unseen "
        f"initial states, at most {case['minutes']:g} minutes of training.",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|" + "---|" * len(COLUMNS),
        *("| " + " | ".join(text.format(**run) for text in COLUMNS.values()) + " |" for run in runs),
    ]
    path = TABLES / f"{name}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(CASES), choices=[*CASES, []], metavar="NAME")
    for case_name in parser.parse_args().names:
        print(f"table: {write_table(case_name, run_case(case_name))}", flush=True)
