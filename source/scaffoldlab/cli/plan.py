"""``scaffoldlab plan``: renders the initial states, plans, validates, writes a library and a picture per plan."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scaffoldlab.cli.common import (
    add_simulation,
    add_task,
    check_noise,
    picture_states,
    progress_bar,
    quiet,
    refuse_option,
    task_name,
)
from scaffoldlab.errors import ScaffoldError
from scaffoldlab.planners.base import ORACLE_PARTS
from scaffoldlab.planners.making import SPLIT_PLANS, SPLITS

if TYPE_CHECKING:
    from scaffoldlab.planners.base import Examples, Planner
    from scaffoldlab.specs.models import Composition

PLANNER_OPTIONS = {
    "orientation": ("scripted", "perturbed", "vlm", "replay"),
    "oracle": ("perturbed", "vlm", "replay"),
    "votes": ("perturbed", "vlm"),
    "batch": ("vlm",),
    "check_collisions": ("perturbed", "vlm", "replay"),
}
"""Options that change plans, and the planners that have them."""

OWN_OPTIONS = {
    "perturb": ("perturbed",),
    "recorded": ("prerecorded",),
    "ledger": ("vlm", "replay"),
    "examples": ("vlm", "replay"),
}
"""The same, of those that only some of the commands with a planner have."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    add_task(parser)
    parser.add_argument(
        "--planner", choices=["scripted", "perturbed", "vlm", "replay", "prerecorded", "goal"], default="scripted",
        help="who plans; the last two are baselines",
    )  # fmt: skip
    parser.add_argument("--recorded", type=Path, default=None, help="library that the prerecorded planner gives")
    parser.add_argument(
        "--perturb", default="", metavar="NAME=VALUE,...", help="errors of the perturbed planner, e.g. pixel_px=8"
    )
    parser.add_argument("--split", choices=SPLITS, default=None, help="initial states of a split; --seed varies all")
    parser.add_argument("--num-plans", type=int, default=None, help="number of plans; by default 64, of a split 100")
    parser.add_argument("--waypoints", type=int, default=None, help="waypoints of a plan; by default the oracle's")
    parser.add_argument("--noise", type=float, default=0.0, help="noise added to the waypoints [m]")
    parser.add_argument("--out", type=Path, default=Path("plans"), help="folder of the library and the pictures")
    parser.add_argument("--pictures", type=int, default=None, help="pictures of plans to draw; by default all")
    add_vlm(parser)
    parser.add_argument("--examples", type=Path, default=None, help="plans that went well, for a model's prompts")
    parser.add_argument(
        "--shots", type=int, default=None, help="of --examples, those drawn into each prompt; by default 3"
    )
    parser.add_argument("--ledger", type=Path, default=None, help="file of recorded calls; by default in --out")
    add_simulation(parser)


def add_vlm(parser: argparse.ArgumentParser) -> None:
    """Arguments of the vlm planner."""
    parser.add_argument("--base-url", default=None, help="OpenAI-compatible endpoint; or SCAFFOLDLAB_BASE_URL")
    parser.add_argument("--model", default=None, help="model of the endpoint; or SCAFFOLDLAB_MODEL")
    parser.add_argument("--points", default=None, help="point convention; by default guessed from the model's name")
    parser.add_argument("--concurrency", type=int, default=4, help="calls at the same time")
    parser.add_argument("--orientation", action="store_true", help="plans also say how the hand is turned")
    parser.add_argument(
        "--oracle", choices=ORACLE_PARTS, default=None, help="what the oracle does in the place of a model that errs"
    )
    parser.add_argument("--batch", type=int, default=1, help="pictures whose keypoints one call asks for at most")
    parser.add_argument("--votes", type=int, default=1, help="answers asked for each plan; the most central is taken")
    parser.add_argument("--check-collisions", action="store_true", help="refuse plans through what cannot move")
    parser.add_argument("--timeout", type=float, default=120.0, help="time-out of a call [s]")
    parser.add_argument("--max-tokens-total", type=int, default=None, help="budget of all calls [tokens]")
    parser.add_argument("--max-cost", type=float, default=None, help="budget of all calls [USD]; needs the prices")
    parser.add_argument("--price-in", type=float, default=None, help="USD per million prompt tokens")
    parser.add_argument("--price-out", type=float, default=None, help="USD per million answer tokens")


def run(args: argparse.Namespace) -> None:
    """Makes the library."""
    if args.num_plans is None:
        args.num_plans = SPLIT_PLANS if args.split else 64
    if args.num_plans < 1 or (args.shots is not None and args.shots < 1):
        raise ScaffoldError(f"plan: --num-plans is {args.num_plans}, --shots {args.shots}; allowed: at least 1.")
    check_noise(args)
    refuse_options(args, args.planner, "--planner", PLANNER_OPTIONS | OWN_OPTIONS)
    if args.examples is None:
        refuse_option(args, "shots", "--examples; got none. Leave it out, or give --examples.")
    from scaffoldlab.planners.making import make_library, split_seed
    from scaffoldlab.specs.models import load_task

    composition = load_task(task_name(args.task))
    name = composition.task.name
    ledger = args.ledger or args.out / f"{name}-{args.planner}.ledger.jsonl"
    planner = make_planner(composition, args, ledger, _examples(args, name))
    seed = split_seed(name, args.split, args.seed) if args.split else args.seed
    stem = f"{name}-{args.planner}-{_states(args)}"
    wanted = args.num_plans if planner.needs_image or args.pictures is None else min(args.pictures, args.num_plans)
    with quiet(args.out / f"{stem}.log") as console:
        images = None
        with progress_bar(console) as bar:
            if wanted:
                images = picture_states(
                    composition, bar, count=wanted, seed=seed, device=args.device, overrides=args.overrides
                )
            job = bar.add_task("plans", total=args.num_plans)
            failures: dict[int, str] = {}

            def on_plan(index: int, failure: str | None) -> None:
                bar.advance(job)
                if failure:
                    failures[index] = failure

            library = make_library(
                composition, planner, count=args.num_plans, seed=seed, noise=args.noise, split=args.split,
                waypoint_count=args.waypoints, images=images if planner.needs_image else None,
                concurrency=args.concurrency, on_plan=on_plan,
            )  # fmt: skip
        path = library.save(args.out / f"{stem}.plans.npz")
        drawn = draw(library, images, args.out / f"{stem}-pictures", args.pictures)
        for index, failure in failures.items():
            console.print(f"[yellow]plan {index} left out:[/] {failure}", highlight=False)
        console.print(f"{len(library)} of {args.num_plans} plans by {planner.name}: {path}", highlight=False)
        if drawn:
            console.print(f"{drawn} pictures: {args.out / f'{stem}-pictures'}", highlight=False)


def _examples(args: argparse.Namespace, task: str) -> "Examples | None":
    """The examples of ``--examples``."""
    if args.examples is None:
        return None
    from scaffoldlab.planners.refine import FewShot
    from scaffoldlab.plans.library import PlanLibrary

    return FewShot(PlanLibrary.load(args.examples, task=task), count=args.shots or 3)


def _states(args: argparse.Namespace) -> str:
    """Which initial states, for the name of a file: ``seed0``, ``train1``, ``train1-seed3``."""
    seed = f"seed{args.seed}"
    return seed if args.split is None else args.split if args.seed == 0 else f"{args.split}-{seed}"


def make_planner(
    composition: "Composition", args: argparse.Namespace, ledger: Path, examples: "Examples | None" = None
) -> "Planner":
    """The planner that the arguments name, with a ledger and examples if it is a model."""
    from scaffoldlab.planners.making import plan_check
    from scaffoldlab.planners.scripted import ScriptedPlanner

    refuse_options(args, args.planner, "--planner")
    oracle = ScriptedPlanner(composition.task.oracle, orientation=args.orientation)
    if args.planner == "scripted":
        return oracle
    if args.planner in ("prerecorded", "goal"):
        return _baseline(composition, args)
    check = plan_check(composition, collisions=args.check_collisions)
    if args.planner == "perturbed":
        from scaffoldlab.planners.perturbed import Perturbation, PerturbedPlanner

        errors = Perturbation.parse(args.perturb)
        return PerturbedPlanner(
            composition, errors.with_oracle(args.oracle) if args.oracle else errors, check=check, votes=args.votes,
            orientation=args.orientation,
        )  # fmt: skip
    oracle_part: dict[str, Any] = {"true_keypoints": args.oracle == "keypoints"}
    oracle_part |= {"trajectories": oracle} if args.oracle == "trajectory" else {}
    if args.planner == "replay":
        from scaffoldlab.planners.replay import replay_planner

        return replay_planner(ledger, check=check, examples=examples, **oracle_part)
    from scaffoldlab.planners.settings import VlmSettings
    from scaffoldlab.planners.vlm import vlm_planner

    settings = VlmSettings(
        base_url=args.base_url, model=args.model, points=args.points, concurrency=args.concurrency,
        timeout_s=args.timeout, token_cap=args.max_tokens_total, cost_cap_usd=args.max_cost,
        price_in_usd=args.price_in, price_out_usd=args.price_out, orientation=args.orientation, votes=args.votes,
        batch=args.batch,
    )  # fmt: skip
    ledger.parent.mkdir(parents=True, exist_ok=True)
    return vlm_planner(settings, ledger=ledger, check=check, examples=examples, **oracle_part)


def refuse_options(
    args: argparse.Namespace, planner: str | None, argument: str,
    options: Mapping[str, Sequence[str]] = PLANNER_OPTIONS,
) -> None:  # fmt: skip
    """Refuses options that the planner of an argument does not have.

    Args:
        args: Arguments of the command.
        planner: The planner, or None where the command plans nothing.
        argument: The argument that names it.
        options: Options, and the planners that have them.

    Raises:
        ScaffoldError: One of them is given.
    """
    got = f"{argument} {planner}" if planner else f"no {argument}"
    for option, planners in options.items():
        if planner not in planners:
            refuse_option(
                args, option,
                f"plans by {', '.join(planners)}; got {got}. Leave it out, or let one of these plan.",
            )  # fmt: skip


def _baseline(composition: "Composition", args: argparse.Namespace) -> "Planner":
    from scaffoldlab.planners.baselines import GoalPlanner, PrerecordedPlanner
    from scaffoldlab.plans.library import PlanLibrary

    if args.planner == "goal":
        return GoalPlanner(composition.task.oracle)
    if args.recorded is None:
        raise ScaffoldError("plan: --planner prerecorded needs --recorded, the library whose plans it gives.")
    return PrerecordedPlanner(PlanLibrary.load(args.recorded, task=composition.task.name))


def draw(library, images, folder: Path, limit: int | None) -> int:
    """Draws plans onto the pictures of their initial states and returns how many were drawn."""
    from scaffoldlab.plans.draw import draw_plan

    drawn = 0
    for plan in library.plans[: len(library) if limit is None else limit]:
        index = plan.provenance["index"]
        if images is None or index >= len(images):
            break
        folder.mkdir(parents=True, exist_ok=True)
        draw_plan(images[index], plan, path=folder / f"plan_{index:04d}.png")
        drawn += 1
    return drawn
