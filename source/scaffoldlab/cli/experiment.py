"""``scaffoldlab experiment``: runs an experiment of the paper as a grid of cached artefacts, and writes its tables."""

import argparse
import os
from itertools import count
from pathlib import Path

from rich.console import Console

from scaffoldlab.errors import ScaffoldError
from scaffoldlab.experiments.models import PROTOCOLS, list_experiments, load_experiment


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    known = ", ".join(list_experiments())
    parser.add_argument("name", nargs="+", help=f"one or more of {known}")
    parser.add_argument("--protocol", choices=list(PROTOCOLS), default=None, help="quick on a CPU, else paper")
    parser.add_argument("--tasks", nargs="+", default=None, help="only these tasks of the experiment")
    parser.add_argument("--rows", nargs="+", default=None, help="only these rows of the experiment")
    parser.add_argument("--device", default=None, help="cpu, cuda:0, ...; by default CUDA where there is any")
    parser.add_argument("--jobs", type=int, default=1, help="artefacts made at the same time; with CUDA one a GPU")
    parser.add_argument("--ray", action="store_true", help="run the artefacts as Ray tasks; needs `pip install ray`")
    parser.add_argument("--out", type=Path, default=Path("outputs/experiments"), help="folder of tables and artefacts")
    parser.add_argument("--dry-run", action="store_true", help="print what would be made, and make nothing")


def run(args: argparse.Namespace) -> None:
    """Makes what is missing and writes the tables."""
    from scaffoldlab.experiments.grid import cells, plan_of_work, run_grid
    from scaffoldlab.experiments.tables import write_tables

    if args.jobs < 1:
        raise ScaffoldError(f"experiment: --jobs is {args.jobs}; allowed: at least 1.")
    name = args.protocol or ("paper" if _gpus() else "quick")
    console, protocol = Console(stderr=True, soft_wrap=True), PROTOCOLS[name]
    for experiment in (load_experiment(n).only(args.tasks, args.rows) for n in args.name):
        grid, root = cells(experiment, protocol, device=args.device), args.out / "artefacts"
        work = plan_of_work(grid, root)
        console.rule(f"[bold]{experiment.title}[/]: {len(grid)} cells, {len(work)} artefacts to make ({name})")
        if args.dry_run:
            for artefact in work:
                console.print(" ".join(artefact.command(root)), highlight=False, markup=False)
            continue
        result = run_grid(
            grid, root, jobs=args.jobs, run=_runner(args),
            on_done=lambda line: console.print(line, highlight=False, markup=False),
        )  # fmt: skip
        table = write_tables(experiment, name, protocol, result, args.out / experiment.name)
        console.print(table.read_text(), highlight=False, markup=False)
        console.print(f"table: {table}", highlight=False)


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()


def _runner(args: argparse.Namespace):
    """Makes artefacts here, one GPU after the other, or as Ray tasks that ask for a GPU each."""
    from scaffoldlab.experiments.grid import run_process

    gpus = _gpus() if (args.device or "cuda").startswith("cuda") else 0
    if not args.ray:
        turn = count()
        return lambda artefact, root: run_process(
            artefact, root, {"CUDA_VISIBLE_DEVICES": str(next(turn) % gpus)} if gpus > 1 else None
        )
    try:
        import ray
    except ImportError as error:
        raise ScaffoldError("experiment: --ray needs Ray. Run: pip install ray, or leave --ray out.") from error
    ray.init(ignore_reinit_error=True, log_to_driver=False)
    remote = ray.remote(num_cpus=min(2, os.cpu_count() or 1), num_gpus=1 if gpus else 0)(run_process)
    return lambda artefact, root: ray.get(remote.remote(artefact, root.resolve()))
