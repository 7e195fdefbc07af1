"""``scaffoldlab refine``: rounds of planning with examples that the policy carried out well (Scaffolds, figure 5)."""

import argparse
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scaffoldlab.cli.common import add_simulation, add_task, picture_states, progress_bar, quiet, task_name
from scaffoldlab.cli.evaluate import find_checkpoint
from scaffoldlab.cli.plan import PLANNER_OPTIONS, add_vlm, make_planner
from scaffoldlab.errors import ScaffoldError, unknown_name
from scaffoldlab.planners.making import SPLIT_PLANS, SPLITS
from scaffoldlab.plans.library import SUFFIX, PlanLibrary

if TYPE_CHECKING:
    from scaffoldlab.evaluation.episodes import Episodes
    from scaffoldlab.planners.refine import Outcome, Round


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    add_task(parser)
    parser.add_argument("--checkpoint", default="best", help="latest, best, or the path of an rsl_rl checkpoint")
    parser.add_argument(
        "--plans", default="train1", metavar="SPLIT,...",
        help=f"splits ({', '.join(SPLITS)}), one a round and the last for all others; the first may be a plan library",
    )  # fmt: skip
    parser.add_argument("--num-plans", type=int, default=SPLIT_PLANS, help="plans of a split")
    parser.add_argument("--rounds", type=int, default=3, help="rounds after the first, which has no examples")
    parser.add_argument("--rank", choices=["success", "tracking"], default="success", help="what makes a good plan")
    parser.add_argument("--top", type=int, default=10, help="best plans of a round to draw examples from")
    parser.add_argument("--shots", type=int, default=3, help="examples drawn into each prompt")
    parser.add_argument("--trials", type=int, default=1, help="episodes per plan")
    parser.add_argument("--pictures", type=int, default=12, help="pictures of plans to draw of each round")
    parser.add_argument("--planner", choices=["vlm", "replay"], default="vlm", help="who plans")
    parser.add_argument("--ledger", type=Path, default=None, help="folder of the refinement to replay")
    parser.add_argument("--out", type=Path, default=Path("outputs/refinement"), help="folder of everything")
    add_vlm(parser)
    add_simulation(parser)


def run(args: argparse.Namespace) -> None:
    """Runs the rounds that are not finished and prints what each one gave."""
    for option, least in (("num_plans", 1), ("rounds", 0), ("top", 1), ("shots", 1), ("trials", 1), ("pictures", 1)):
        if getattr(args, option) < least:
            name = option.replace("_", "-")
            raise ScaffoldError(f"refine: --{name} is {getattr(args, option)}; allowed: at least {least}.")
    if (args.planner == "replay") != (args.ledger is not None):
        raise ScaffoldError("refine: --planner replay and --ledger FOLDER go together: give both or neither.")
    from scaffoldlab.planners.refine import Refinement
    from scaffoldlab.specs.models import load_task
    from scaffoldlab.tasks.simulation import with_default_presets

    composition = load_task(task_name(args.task))
    name = composition.task.name
    sources = read_sources(args.plans, name)
    checkpoint = find_checkpoint(name, args.checkpoint)
    overrides = with_default_presets(args.overrides, args.device)
    with quiet(args.out / "console.log") as console, progress_bar(console) as bar:

        def pictures(seed: int, count: int):
            return picture_states(composition, bar, count=count, seed=seed, device=args.device, overrides=overrides)

        def rollout(library: PlanLibrary) -> "Outcome":
            return outcome(run_policy(name, checkpoint, library, args, overrides, bar), len(library))

        def planner(number: int, examples, ledger: Path):
            ledger = args.ledger / f"round_{number}" / "ledger.jsonl" if args.ledger else ledger
            return make_planner(composition, args, ledger, examples)

        rounds = Refinement(
            composition=composition, folder=args.out, planner=planner, rollout=rollout, pictures=pictures,
            sources=sources, rounds=args.rounds, rank=args.rank, top=args.top, shots=args.shots,
            count=args.num_plans, seed=args.seed, concurrency=args.concurrency, drawn=args.pictures,
            settings={
                "planner": args.planner, "model": args.model or os.environ.get("SCAFFOLDLAB_MODEL"),
                "points": args.points, "overrides": args.overrides,
                **{option: getattr(args, option) for option in PLANNER_OPTIONS},
                "trials": args.trials, "checkpoint": hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
            },
        ).run(lambda finished: console.print(sentence(finished), highlight=False))  # fmt: skip
        console.print(f"all rounds side by side: {args.out / 'rounds.png'}", highlight=False)
        if rounds[-1].best:
            best = args.out / f"round_{rounds[-1].number}" / "best.plans.npz"
            console.print(
                f"plan with its best: scaffoldlab plan --task {name} --planner vlm --split test --examples {best}",
                highlight=False,
            )


def read_sources(text: str, task: str) -> list[str | PlanLibrary]:
    """The splits, and perhaps the library, of ``--plans``.

    Raises:
        ScaffoldError: An unknown split, or a library that is not the first.
    """
    names = [name.strip() for name in text.split(",")]
    first = [PlanLibrary.load(names.pop(0), task=task)] if names[0].endswith(SUFFIX) else []
    for name in names:
        if name not in SPLITS:
            raise unknown_name("split", name, SPLITS, "--plans")
    return [*first, *names]


def run_policy(name: str, checkpoint: Path, library: PlanLibrary, args, overrides, bar) -> "Episodes":
    """Runs the deterministic policy on every plan."""
    from scaffoldlab.evaluation.rollout import run_episodes
    from scaffoldlab.tasks.simulation import open_env
    from scaffoldlab.training import deterministic_policy, load_checkpoint, make_runner

    envs = min(len(library) * args.trials, 1024)
    with open_env(name, num_envs=envs, device=args.device, seed=args.seed, overrides=overrides) as env:
        runner = make_runner(env, name, folder=None, seed=args.seed, overrides=list(overrides))
        load_checkpoint(runner, checkpoint)
        job = bar.add_task("episodes")
        return run_episodes(
            env, library, {"deterministic": deterministic_policy(runner)}, trials=args.trials,
            on_step=lambda done, total: bar.update(job, completed=done, total=total),
        )[0]  # fmt: skip


def outcome(episodes: "Episodes", count: int) -> "Outcome":
    """What became of each of the plans 0..count - 1, mean over its trials."""
    from scaffoldlab.planners.refine import Outcome

    lost = ~(episodes.error <= episodes.threshold)
    steps = lost.shape[1]
    completed = np.where(lost.any(1), lost.argmax(1) / steps, 1.0)

    def mean(values: np.ndarray) -> np.ndarray:
        return np.array([values[episodes.plan_id == plan].mean() for plan in range(count)])

    return Outcome(success=mean(episodes.success), completed=mean(completed), error=mean(episodes.error.mean(1)))


def sentence(finished: "Round") -> str:
    """A round in one line."""
    shown = f"examples from {finished.examples} plans" if finished.examples else "no examples"
    note = f" {finished.note}" if finished.note else ""
    return (
        f"round {finished.number} ({finished.source}, {shown}): {finished.plans} of {finished.asked} plans, success "
        f"{finished.success_rate:.0%}, tracked to the end {finished.completed_rate:.0%}.{note}"
    )
