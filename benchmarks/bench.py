"""``make bench``: throughput of the full env, speed of the kernel, start-up and import, in outputs/bench.json."""

import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from keypoint_kernel import kernel_speedup_cpu
from throughput import env_throughput

FIRST_STEP = """
import torch
from scaffoldlab.tasks.simulation import open_env
with open_env("move_apple", num_envs=64) as env:
    env.reset()
    env.step(torch.zeros(64, env.action_manager.total_action_dim, device=env.device))
    print("STEPPED")
"""


def first_step_seconds() -> float:
    """From the start of a process to the first step of 64 envs [s], median of 3 after one to warm the caches."""
    return median([_seconds(FIRST_STEP, "STEPPED") for _ in range(4)][1:])


def import_seconds() -> float:
    """Time of ``import scaffoldlab`` alone [s], median of 5."""
    code = "import time; t = time.perf_counter(); import scaffoldlab; print('TOOK', time.perf_counter() - t)"
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout for _ in range(5)]
    return median(float(out.split("TOOK")[1]) for out in runs)


def _seconds(code: str, sign: str) -> float:
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if sign in line:
            seconds = time.perf_counter() - started
            process.stdout.read()
            process.wait()
            return seconds
    raise SystemExit("benchmark: the simulation did not start; `scripts/run scaffoldlab doctor` tells why")


def main() -> None:
    kernel, throughput = kernel_speedup_cpu(), env_throughput()
    result = {
        "env_throughput_ratio": throughput["env_throughput_ratio"],
        "kernel_speedup_cpu": kernel["ratio"],
        "first_step_seconds": first_step_seconds(),
        "import_seconds": import_seconds(),
        "physics": "ovphysx",
        "machine": {"cores": len(os.sched_getaffinity(0)), "processor": platform.processor() or platform.machine()},
        "kernel": kernel,
        "throughput": throughput,
    }
    path = Path(__file__).parents[1] / "outputs/bench.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")
    targets = {
        "env_throughput_ratio": ">= 0.80",
        "kernel_speedup_cpu": ">= 4",
        "first_step_seconds": "<= 15",
        "import_seconds": "< 0.3",
    }
    for name, target in targets.items():
        print(f"{name:<22} {result[name]:7.3f}   target {target}")
    print(f"written to {path}")


if __name__ == "__main__":
    main()
