"""Speed of the fused keypoint kernel against its torch twin on the CPU: python benchmarks/keypoint_kernel.py."""

import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import warp as wp

from scaffoldlab.keypoints.distance import KeypointDistance, keypoint_distance_torch

TARGET = 4.0
"""Least ratio that the kernel must reach."""


def kernel_speedup_cpu(
    *, num_envs: int = 2048, num_keypoints: int = 8, num_bodies: int = 3, rounds: int = 40, calls: int = 20
) -> dict[str, Any]:
    """Times one call of both on the same numbers: medians over rounds in which they take turns.

    Returns:
        The sizes, the times of a call [us] (``warp_us``, ``torch_us`` with torch's own number of threads,
        ``torch_1_thread_us``), ``torch_threads``, the ``ratio`` of the faster torch time to Warp's, its ``target``,
        ``max_difference`` of the distances [m], and the ``load`` of the machine before: other work on it slows
        torch's threads more than the kernel, so that only a ratio of a quiet machine counts.
    """
    fused = KeypointDistance(num_envs=num_envs, num_keypoints=num_keypoints, num_bodies=num_bodies, delta=0.1)
    generator = torch.Generator().manual_seed(0)
    for buffer in (fused.body_poses, fused.point_b, fused.target):
        buffer.normal_(std=0.1, generator=generator)
    fused.body_poses[..., 3:] /= fused.body_poses[..., 3:].norm(dim=-1, keepdim=True)
    fused.body_index.random_(num_bodies, generator=generator)
    body_index = fused.body_index.long()  # what gather wants, made once

    def twin() -> torch.Tensor:
        return keypoint_distance_torch(fused.body_poses, body_index, fused.point_b, fused.target, fused.delta).distance

    load = os.getloadavg()[0]
    threads = torch.get_num_threads()
    subjects = {"warp_us": (fused.compute, threads), "torch_us": (twin, threads), "torch_1_thread_us": (twin, 1)}
    times: dict[str, list[float]] = {name: [] for name in subjects}
    try:
        with torch.inference_mode():
            for _ in range(rounds):
                for name, (call, count) in subjects.items():
                    torch.set_num_threads(count)
                    times[name].append(_microseconds(call, calls))
            difference = float((twin() - fused.distance).abs().max())
    finally:
        torch.set_num_threads(threads)
    medians = {name: statistics.median(values) for name, values in times.items()}
    ratio = min(medians["torch_us"], medians["torch_1_thread_us"]) / medians["warp_us"]
    sizes = {"num_envs": num_envs, "num_keypoints": num_keypoints, "num_bodies": num_bodies}
    conditions = {"torch_threads": threads, "load": load}
    return sizes | medians | conditions | {"ratio": ratio, "target": TARGET, "max_difference": difference}


def _microseconds(call: Callable[[], object], calls: int) -> float:
    for _ in range(3):  # wakes the threads and fills the caches
        call()
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / calls * 1e6


def main() -> None:
    """Prints the table; exits non-zero below the target."""
    wp.config.log_level = wp.LOG_WARNING
    result = kernel_speedup_cpu()
    print("{num_envs} envs, {num_keypoints} keypoints, {num_bodies} bodies, CPU, us a call".format(**result))
    print(f"  {'Warp, fused kernel':<24}{result['warp_us']:8.1f}")
    print(f"  {'torch, default':<24}{result['torch_us']:8.1f}  ({result['torch_threads']} threads)")
    print(f"  {'torch, 1 thread':<24}{result['torch_1_thread_us']:8.1f}")
    print(f"  {'ratio to faster torch':<24}{result['ratio']:8.2f}  (target {result['target']:g})")
    print(f"  {'load before':<24}{result['load']:8.2f}")
    print(f"  {'largest difference':<24}{result['max_difference']:8.1e} m")
    if result["ratio"] < result["target"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
