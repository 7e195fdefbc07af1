"""``scaffoldlab demo``: plans, trains, evaluates and reports; interrupted, the same command goes on."""

import argparse
import os
import shutil
import time
from pathlib import Path

from rich.console import Console

from scaffoldlab.cli import evaluate as evaluate_command
from scaffoldlab.cli.common import add_simulation, add_task, check_noise, picture_states, progress_bar, quiet, task_name
from scaffoldlab.cli.plan import PLANNER_OPTIONS, add_vlm, make_planner
from scaffoldlab.errors import ScaffoldError
from scaffoldlab.files import keep_settings

SPLITS = {"train": 64, "validation": 64, "test": 100}
"""Plans of each split; their initial states differ."""

SETTINGS = ("task", "planner", "model", "noise", "seed", "num_envs", "device", "overrides", *PLANNER_OPTIONS)
"""Arguments that cannot change when a run goes on."""

MARK = "settings.json"
"""The file that says that a folder is a demo's."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    add_task(parser, default="move_apple")
    parser.add_argument("--noise", type=float, default=0.0, help="noise added to the waypoints [m]")
    parser.add_argument("--num-envs", type=int, default=256, help="envs in training")
    parser.add_argument("--minutes", type=float, default=3.5, help="training time at most")
    parser.add_argument("--iterations", type=int, default=2000, help="PPO iterations at most")
    parser.add_argument("--target", type=float, default=0.95, help="validation success at which training stops")
    parser.add_argument("--trials", type=int, default=1, help="episodes per state and policy in the evaluation")
    parser.add_argument("--out", type=Path, default=Path("outputs/demo"), help="folder of everything")
    parser.add_argument("--fresh", action="store_true", help="start over instead of going on")
    add_vlm(parser)
    add_simulation(parser)


def run(args: argparse.Namespace) -> None:
    """Runs what is not done yet."""
    check_noise(args)
    name = task_name(args.task)
    started = time.monotonic()
    if args.fresh:
        _start_over(args.out)
    args.planner = "vlm" if args.model or os.environ.get("SCAFFOLDLAB_MODEL") else "scripted"
    keep_settings(args.out / MARK, {key: getattr(args, key) for key in SETTINGS} | {"task": name})
    with quiet(args.out / "console.log") as console:
        from scaffoldlab.cli.train import train

        source = "the scripted oracle" if args.planner == "scripted" else "a vision-language model"
        console.rule(f"[bold]ScaffoldLab: {name}[/], plans by {source}")
        libraries = {split: _library(name, split, count, args, console) for split, count in SPLITS.items()}
        best, state = train(name, args.out / "training", libraries["train"], libraries["validation"], args, console)
        metrics = evaluate_command.evaluate(name, best, libraries["test"], args, console)
        console.print(evaluate_command.headline(metrics), highlight=False)
        console.print(
            f"trained on {state.curve[-1]['env_steps'] / 1e3:.0f}k steps in {state.wall_seconds:.0f} s; "
            f"this run took {time.monotonic() - started:.0f} s",
            highlight=False,
        )
        console.print(f"report:  {args.out / 'index.html'}\nmetrics: {args.out / 'metrics.json'}", highlight=False)


def _start_over(folder: Path) -> None:
    """Deletes the folder of an earlier demo, and no other.

    Raises:
        ScaffoldError: Something else is in it.
    """
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARK).is_file():
        raise ScaffoldError(
            f"demo: --fresh deletes the folder of an earlier demo; got {folder}, which has no {MARK}. Choose another "
            "--out, or delete it by hand."
        )
    shutil.rmtree(folder, ignore_errors=True)


def _library(name: str, split: str, count: int, args: argparse.Namespace, console: Console):
    """The plans of a split: read if they were made by the same arguments, else made."""
    from scaffoldlab.planners.making import make_library, split_seed
    from scaffoldlab.plans.library import PlanLibrary
    from scaffoldlab.specs.models import load_task

    composition, seed = load_task(name), split_seed(name, split)
    path = args.out / "plans" / f"{name}-{args.planner}-{split}-noise{args.noise:g}.plans.npz"
    if path.is_file():
        return PlanLibrary.load(path, task=name)
    planner = make_planner(composition, args, path.with_suffix(".ledger.jsonl"))
    with progress_bar(console) as bar:
        images = None
        if planner.needs_image:
            images = picture_states(composition, bar, count=count, seed=seed, device=args.device)
        job = bar.add_task(f"{split} plans", total=count)
        library = make_library(
            composition, planner, count=count, seed=seed, noise=args.noise, images=images,
            concurrency=args.concurrency, on_plan=lambda index, failure: bar.advance(job),
        )  # fmt: skip
    if len(library) < count:
        console.print(f"{split}: {len(library)} of {count} plans; the ledger beside {path} says why", highlight=False)
    library.save(path)
    return library
