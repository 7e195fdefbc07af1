"""``scaffoldlab imitate``: trains a diffusion policy on successful rollouts of a trained policy."""

import argparse
from pathlib import Path

from scaffoldlab.cli.common import add_simulation, add_task, progress_bar, quiet, task_name
from scaffoldlab.errors import ScaffoldError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    add_task(parser)
    parser.add_argument("--teacher", type=Path, required=True, help="checkpoint of the policy to imitate")
    parser.add_argument("--plans", type=Path, required=True, help="plan library that the teacher carries out")
    parser.add_argument("--demonstrations", type=int, default=50, help="successful rollouts to learn from")
    parser.add_argument("--steps", type=int, default=4000, help="gradient steps")
    parser.add_argument("--out", type=Path, default=Path("outputs/imitation"), help="folder of policy.pt")
    add_simulation(parser)


def run(args: argparse.Namespace) -> None:
    """Collects, trains and writes the policy."""
    if args.demonstrations < 1 or args.steps < 1:
        raise ScaffoldError(
            f"imitate: --demonstrations is {args.demonstrations}, --steps {args.steps}; allowed: at least 1."
        )
    from scaffoldlab.plans.library import PlanLibrary

    name = task_name(args.task)
    library = PlanLibrary.load(args.plans, task=name)
    with quiet(args.out / "console.log") as console:
        from scaffoldlab.evaluation.policies import load_policies
        from scaffoldlab.imitation.demonstrations import collect
        from scaffoldlab.imitation.diffusion import train_diffusion
        from scaffoldlab.tasks.simulation import open_env, with_default_presets

        overrides = with_default_presets(args.overrides, args.device)
        with open_env(
            name, num_envs=len(library), device=args.device, seed=args.seed, overrides=tuple(overrides)
        ) as env:
            teacher = load_policies(env, name, args.teacher, seed=args.seed, overrides=overrides)["deterministic"]
            demonstrations = collect(env, library, teacher, count=args.demonstrations)
        with progress_bar(console) as bar:
            job = bar.add_task("training", total=args.steps)
            policy = train_diffusion(
                demonstrations,
                steps=args.steps,
                seed=args.seed,
                on_step=lambda step, loss: bar.update(job, completed=step),
            )
        path = args.out / "policy.pt"
        policy.save(path, task=name, teacher=str(args.teacher), demonstrations=args.demonstrations, seed=args.seed)
        console.print(f"policy from {args.demonstrations} demonstrations: {path}", highlight=False)
