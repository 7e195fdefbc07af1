"""``scaffoldlab train``: trains a policy on a plan library, keeping the best checkpoint by evaluation."""

import argparse
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from scaffoldlab.cli.common import add_simulation, add_task, check_noise, quiet, task_name
from scaffoldlab.errors import ScaffoldError
from scaffoldlab.files import keep_settings

if TYPE_CHECKING:
    from scaffoldlab.plans.library import PlanLibrary
    from scaffoldlab.training import TrainingState


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    add_task(parser)
    parser.add_argument("--plans", type=Path, default=None, help="plan library; by default 64 plans of the oracle")
    parser.add_argument(
        "--validation",
        type=Path,
        default=None,
        help="library that chooses the best checkpoint; by default oracle",
    )
    parser.add_argument(
        "--noise", type=float, default=None, help="noise of the oracle's waypoints [m]; by default none"
    )
    parser.add_argument("--num-envs", type=int, default=256, help="envs")
    parser.add_argument("--minutes", type=float, default=4.0, help="wall time at most")
    parser.add_argument("--iterations", type=int, default=2000, help="PPO iterations at most")
    parser.add_argument("--target", type=float, default=0.95, help="validation success at which training stops")
    parser.add_argument("--out", type=Path, default=None, help="run folder, resumed if unfinished; by default in logs/")
    add_simulation(parser)


def run(args: argparse.Namespace) -> None:
    """Trains and prints the path of the best checkpoint."""
    check_noise(args)
    from scaffoldlab.planners.making import scripted_library, split_seed
    from scaffoldlab.plans.library import PlanLibrary
    from scaffoldlab.specs.models import load_task

    name = task_name(args.task)
    composition = load_task(name)
    if args.plans:
        library = PlanLibrary.load(args.plans, task=name)
    else:
        library = scripted_library(composition, count=64, seed=split_seed(name, "train"), noise=args.noise or 0.0)
    if args.validation:
        validation = PlanLibrary.load(args.validation, task=name)
    else:
        noise = library.header.get("waypoint_noise_m", 0.0)
        validation = scripted_library(composition, count=64, seed=split_seed(name, "validation"), noise=noise)
    folder = args.out or Path("logs/rsl_rl") / name / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    with quiet(folder / "console.log") as console:
        best, state = train(name, folder, library, validation, args, console)
        console.print(f"{_outcome(state)}\nbest checkpoint: {best}", highlight=False)


def train(
    task: str,
    folder: Path,
    library: "PlanLibrary",
    validation: "PlanLibrary",
    args: argparse.Namespace,
    console: Console,
) -> "tuple[Path, TrainingState]":
    """Trains with a live progress bar; an unfinished run in the folder is resumed."""
    if args.num_envs < 8 or args.minutes <= 0 or args.iterations < 1:
        raise ScaffoldError(
            f"train: --num-envs is {args.num_envs}, --minutes {args.minutes}, --iterations {args.iterations}; "
            "allowed: at least 8, more than 0 and at least 1."
        )
    overrides = list(args.overrides)
    settings = {"task": task, "plans": library.digest, "validation": validation.digest, "seed": args.seed}
    keep_settings(folder / "settings.json", settings | {"num_envs": args.num_envs, "overrides": overrides})
    from scaffoldlab.tasks.simulation import open_env, with_default_presets
    from scaffoldlab.training import Trainer, TrainingLimits

    limits = TrainingLimits(iterations=args.iterations, seconds=60 * args.minutes, target=args.target)
    overrides = with_default_presets(overrides, args.device)
    now = TextColumn("{task.fields[now]}")
    columns = TextColumn("{task.description:<12}"), BarColumn(bar_width=28), TimeElapsedColumn(), now
    with Progress(*columns, console=console, refresh_per_second=2) as bar:
        job = bar.add_task("training", total=limits.seconds, now="starting the simulation")
        with open_env(task, num_envs=args.num_envs, device=args.device, seed=args.seed, overrides=overrides) as env:
            trainer = Trainer(
                env, task=task, folder=folder, library=library, validation=validation,
                seed=args.seed, overrides=list(overrides), limits=limits,
            )  # fmt: skip
            best = trainer.run(
                lambda state: bar.update(job, completed=state.wall_seconds, now=_now(state, limits.seconds))
            )
            bar.update(job, completed=limits.seconds, now=_outcome(trainer.state))
    return best, trainer.state


def _now(state: "TrainingState", seconds: float) -> str:
    """Success so far, speed and time left."""
    point = state.curve[-1]
    evaluated = [p["eval_success"] for p in state.curve if p["eval_success"] is not None]
    success = f"success {evaluated[-1]:.0%} (best {max(evaluated):.0%})" if evaluated else "success not measured yet"
    left = max(0, seconds - state.wall_seconds)
    return (
        f"{point['env_steps'] / 1e3:.0f}k steps, {point['steps_per_second'] / 1e3:.1f}k/s, {success}, "
        f"at most {left // 60:.0f}:{left % 60:02.0f} left"
    )


def _outcome(state: "TrainingState") -> str:
    evaluated = [p["eval_success"] for p in state.curve if p["eval_success"] is not None]
    best = f"best validation success {max(evaluated):.0%}" if evaluated else "never evaluated"
    return f"{best} after {state.curve[-1]['env_steps'] / 1e3:.0f}k steps in {state.wall_seconds:.0f} s"
