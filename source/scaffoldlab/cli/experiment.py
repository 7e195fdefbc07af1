"""``scaffoldlab experiment``: runs an experiment of the paper as a grid of cached artefacts, and writes its tables."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING

from rich.console import Console

from scaffoldlab.errors import ScaffoldError
from scaffoldlab.experiments.models import PROTOCOLS, list_experiments, load_experiment

if TYPE_CHECKING:
    from scaffoldlab.experiments.grid import Artefact, Run, Share

CORES_OF_A_JOB = 2
"""The simulator and the rest of a training keep two cores busy."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    known = ", ".join(list_experiments())
    parser.add_argument("name", nargs="+", help=f"one or more of {known}")
    parser.add_argument("--protocol", choices=list(PROTOCOLS), default=None, help="quick on a CPU, else paper")
    parser.add_argument("--tasks", nargs="+", default=None, help="only these tasks of the experiment")
    parser.add_argument("--rows", nargs="+", default=None, help="only these rows of the experiment")
    parser.add_argument("--device", default=None, help="cpu, cuda:0, ...; by default every GPU that is visible, or cpu")
    parser.add_argument(
        "--jobs", type=int, default=None,
        help="artefacts made at a time; by default one a GPU or for two CPU cores, with --ray what it has room for",
    )  # fmt: skip
    parser.add_argument("--ray", action="store_true", help="run the artefacts as Ray tasks; needs `pip install ray`")
    parser.add_argument("--out", type=Path, default=Path("outputs/experiments"), help="folder of tables and artefacts")
    parser.add_argument("--dry-run", action="store_true", help="print what would be made, and make nothing")


def run(args: argparse.Namespace) -> int:
    """Makes what is missing and writes the tables; 1 if nothing at all was measured."""
    from scaffoldlab.experiments.grid import cells, plan_of_work, run_grid
    from scaffoldlab.experiments.tables import write_tables

    if args.jobs is not None and args.jobs < 1:
        raise ScaffoldError(f"experiment: --jobs is {args.jobs}; allowed: at least 1.")
    name = args.protocol or ("paper" if visible_gpus() else "quick")
    console, protocol = Console(stderr=True, soft_wrap=True), PROTOCOLS[name]
    make, jobs = (None, 1) if args.dry_run else _runner(args)
    measured = 0
    for experiment in [load_experiment(n).only(args.tasks, args.rows) for n in args.name]:
        grid, root = cells(experiment, protocol, device=args.device), args.out / "artefacts"
        work = plan_of_work(grid, root)
        console.rule(f"[bold]{experiment.title}[/]: {len(grid)} cells, {len(work)} artefacts to make ({name})")
        if args.dry_run:
            for artefact in work:
                console.print(" ".join(artefact.command(root)), highlight=False, markup=False)
            continue
        result = run_grid(
            grid, root, jobs=jobs, run=make,
            on_done=lambda line: console.print(line, highlight=False, markup=False),
        )  # fmt: skip
        measured += len(result.metrics)
        table = write_tables(experiment, name, protocol, result, args.out / experiment.name)
        console.print(table.read_text(), highlight=False, markup=False)
        console.print(f"table: {table}", highlight=False)
    return 0 if measured or args.dry_run else 1


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them."""
    import torch

    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    ids = range(count) if named is None else named.split(",")[:count]
    return [str(i).strip() for i in ids]


def _runner(args: argparse.Namespace) -> tuple[Run, int]:
    """Makes artefacts here or as Ray tasks; and how many at the same time."""
    from scaffoldlab.experiments.grid import run_process

    if args.ray:
        return _ray_runner(args)
    if args.device and args.device.startswith("cuda:"):  # the one that the user has chosen
        return run_process, args.jobs or 1
    shares = shares_of(visible_gpus() if args.device != "cpu" else [], sorted(os.sched_getaffinity(0)), args.jobs)
    return one_share_each(run_process, shares), len(shares)


def shares_of(gpus: list[str], cores: list[int], jobs: int | None) -> list[Share]:
    """What each job has to itself: a GPU, or without any at least two cores.

    Args:
        gpus: As ``CUDA_VISIBLE_DEVICES`` names them.
        cores: Numbers of the CPU cores.
        jobs: How many; None makes as many as have a share of their own. More than that share the GPUs evenly, or all
            of the cores.
    """
    from scaffoldlab.experiments.grid import Share

    jobs = jobs or max(1, len(gpus) or len(cores) // CORES_OF_A_JOB)
    if gpus:
        return [Share(gpu=gpus[job % len(gpus)]) for job in range(jobs)]
    each = len(cores) // jobs
    if each < CORES_OF_A_JOB:
        return [Share()] * jobs
    return [Share(cores=frozenset(cores[job * each : (job + 1) * each])) for job in range(jobs)]


def one_share_each(run: Callable[[Artefact, Path, Share], None], shares: list[Share]) -> Run:
    """Gives each artefact a share of the machine that no other one has at that time."""
    free: SimpleQueue[Share] = SimpleQueue()
    for share in shares:
        free.put(share)

    def on_free_share(artefact: Artefact, root: Path) -> None:
        share = free.get()
        try:
            run(artefact, root, share)
        finally:
            free.put(share)

    return on_free_share


def _ray_runner(args: argparse.Namespace) -> tuple[Run, int]:
    """As Ray tasks, which ask for a GPU each where the cluster has any."""
    from scaffoldlab.experiments.grid import run_process

    try:
        import ray
    except ImportError as error:
        raise ScaffoldError("experiment: --ray needs Ray. Run: pip install ray, or leave --ray out.") from error
    ray.init(ignore_reinit_error=True, log_to_driver=False)
    there = ray.cluster_resources()
    on_gpu = there.get("GPU", 0) >= 1 and (args.device or "cuda").startswith("cuda")
    needs = {"CPU": min(CORES_OF_A_JOB, os.cpu_count() or 1), "GPU": int(on_gpu)}
    remote = ray.remote(num_cpus=needs["CPU"], num_gpus=needs["GPU"])(run_process)
    return lambda artefact, root: ray.get(remote.remote(artefact, root.resolve())), args.jobs or fitting(needs, there)


def fitting(needs: Mapping[str, float], there: Mapping[str, float]) -> int:
    """How many jobs fit into the resources that are there, at least one."""
    return max(1, min(int(there.get(name, 0) // need) for name, need in needs.items() if need))
