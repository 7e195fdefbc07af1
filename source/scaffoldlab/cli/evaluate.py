"""``scaffoldlab evaluate``: a checkpoint beside its baselines on unseen initial states, as a report."""

import argparse
import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from scaffoldlab.cli.common import add_simulation, add_task, check_noise, progress_bar, quiet, task_name
from scaffoldlab.cli.plan import PLANNER_OPTIONS, add_vlm, make_planner, refuse_options
from scaffoldlab.errors import ScaffoldError

if TYPE_CHECKING:
    from scaffoldlab.evaluation.replan import Replanner
    from scaffoldlab.specs.models import Composition

REPLANNERS = ("scripted", "perturbed", "vlm", "replay")
"""Who can plan again."""

REPLAN_OPTIONS = {
    "perturb": ("perturbed",),
    "ledger": ("vlm", "replay"),
    "replan_error": REPLANNERS,
    "replan_steps": REPLANNERS,
}
"""Options of this command that are for planning again, and the planners that have them."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    add_task(parser)
    parser.add_argument("--checkpoint", default="best", help="latest, best, or the path of an rsl_rl checkpoint")
    parser.add_argument("--plans", type=Path, default=None, help="plan library; by default the oracle's test split")
    parser.add_argument(
        "--noise", type=float, default=None, help="noise of the oracle's waypoints [m]; by default none"
    )
    parser.add_argument("--episodes", type=int, default=None, help="initial states; by default all of --plans, or 100")
    parser.add_argument("--trials", type=int, default=1, help="episodes per state and policy")
    parser.add_argument(
        "--replan", choices=REPLANNERS, nargs="?", const="scripted", default=None,
        help="also let a planner plan again where tracking fails; by default the oracle",
    )  # fmt: skip
    parser.add_argument("--perturb", default="", metavar="NAME=VALUE,...", help="errors of --replan perturbed")
    parser.add_argument("--replan-error", type=float, default=None, help="tracking error that counts as failing [m]")
    parser.add_argument(
        "--replan-steps", type=int, default=None, help="control steps in a row that it lasts; by default 20"
    )
    parser.add_argument("--no-film", action="store_true", help="leave the video and the pictures out of the report")
    parser.add_argument("--out", type=Path, default=Path("outputs/evaluation"), help="folder of the report")
    add_vlm(parser)
    parser.add_argument("--ledger", type=Path, default=None, help="file of recorded calls; by default in --out")
    add_simulation(parser)


def run(args: argparse.Namespace) -> None:
    """Evaluates and prints the headline."""
    if args.trials < 1 or (args.episodes is not None and args.episodes < 1):
        raise ScaffoldError(f"evaluate: --trials is {args.trials}, --episodes {args.episodes}; allowed: at least 1.")
    check_noise(args)
    refuse_options(args, args.replan, "--replan", PLANNER_OPTIONS | REPLAN_OPTIONS)
    from scaffoldlab.planners.making import SPLIT_PLANS, scripted_library, split_seed
    from scaffoldlab.plans.library import PlanLibrary
    from scaffoldlab.specs.models import load_task

    name = task_name(args.task)
    if args.plans:
        library = PlanLibrary.load(args.plans, task=name)
    else:
        seed = split_seed(name, "test")
        count, noise = args.episodes or SPLIT_PLANS, args.noise or 0.0
        library = scripted_library(load_task(name), count=count, seed=seed, noise=noise)
    checkpoint = find_checkpoint(name, args.checkpoint)
    replanner = _replanner(args, load_task(name))
    from scaffoldlab.evaluation.evaluate import first_plans

    if args.episodes is not None:
        library = first_plans(library, args.episodes)
    with quiet(args.out / "console.log") as console:
        metrics = evaluate(name, checkpoint, library, args, console, replanner, filmed=not args.no_film)
        console.print(headline(metrics), highlight=False)
        if replanner and (failures := replanner.failures):
            console.print(
                f"[yellow]{len(failures)} of {len(failures) + replanner.count} times there was no new plan; the first "
                f"time because:[/] {escape(failures[0])}",
                highlight=False,
            )
        console.print(f"report: {args.out / 'index.html'}", highlight=False)


def _replanner(args: argparse.Namespace, composition: "Composition") -> "Replanner | None":
    """Who plans again in the middle of an episode."""
    if args.replan is None:
        return None
    from scaffoldlab.evaluation.replan import Replanner

    ledger = args.ledger or args.out / "replan.ledger.jsonl"
    planner = make_planner(composition, argparse.Namespace(**vars(args) | {"planner": args.replan}), ledger)
    steps = 20 if args.replan_steps is None else args.replan_steps
    return Replanner(planner, error=args.replan_error, steps=steps, concurrency=args.concurrency)


def evaluate(
    name, checkpoint: Path, library, args: argparse.Namespace, console, replanner=None, *, filmed=True
) -> dict:
    """Runs an evaluation with progress bars and returns its metrics."""
    from scaffoldlab.evaluation.evaluate import Evaluation
    from scaffoldlab.tasks.simulation import with_default_presets
    from scaffoldlab.training import STATE

    state = checkpoint.parent / STATE
    evaluation = Evaluation(
        task=name, checkpoint=checkpoint, plans=library, trials=args.trials, seed=args.seed, device=args.device,
        overrides=with_default_presets(args.overrides, args.device), folder=args.out,
        training=json.loads(state.read_text())["curve"] if state.is_file() else [],
        replanner=replanner, filmed=filmed,
    )  # fmt: skip
    with progress_bar(console) as bar:
        jobs: dict = {}

        def progress(stage: str, done: int, total: int) -> None:
            if stage not in jobs:
                jobs[stage] = bar.add_task(stage, total=total)
            bar.update(jobs[stage], completed=done, total=total)

        return evaluation.run(progress)


def headline(metrics: dict) -> str:
    """The result in one line."""
    replanned = f", replanned {metrics['replanned_success_rate']:.0%}" if "replanned_success_rate" in metrics else ""
    return (
        f"{metrics['task']} on {metrics['physics']} ({metrics['device']}), plans by {metrics['plan_source']}: success "
        f"{metrics['success_rate']:.0%} ± {metrics['success_stderr']:.1%} deterministic, "
        f"{metrics['sampled_success_rate']:.0%} sampled; zero action {metrics['zero_action_success_rate']:.0%}, "
        f"best timed close {metrics['best_timed_close_success_rate']:.0%}{replanned}"
    )


def find_checkpoint(name: str, given: str) -> Path:
    """Path of ``latest``, ``best`` or a file.

    Raises:
        ScaffoldError: There is none.
    """
    if given not in ("latest", "best"):
        path = Path(given)
        if not path.is_file():
            raise ScaffoldError(f"--checkpoint {given}: no such file. Give a .pt file, or `latest` or `best`.")
        if not zipfile.is_zipfile(path):  # told at once, and not when the simulation is open
            raise ScaffoldError(
                f"checkpoint {path}: not a readable rsl_rl checkpoint (nothing that torch has saved, or cut off). Give "
                "another .pt file, or `latest` or `best`."
            )
        return path
    runs = sorted((Path("logs/rsl_rl") / name).glob("*/run.json"), key=lambda p: p.stat().st_mtime)
    for run_file in reversed(runs):
        folder = run_file.parent
        found = sorted([*folder.glob("model_*.pt"), *folder.glob("resume.pt")], key=lambda p: p.stat().st_mtime)
        best = folder / "model_best.pt"
        if given == "best" and best.is_file():
            return best
        if found:
            return found[-1]
    raise ScaffoldError(
        f"--checkpoint {given}: no run of {name!r} in {Path('logs/rsl_rl') / name}. "
        f"Train one with `scaffoldlab train --task {name}`, or give the path of a checkpoint."
    )
