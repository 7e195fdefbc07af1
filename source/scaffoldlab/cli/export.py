"""``scaffoldlab export``: a checkpoint as one ONNX file that says what it sees and what its actions mean."""

import argparse
from pathlib import Path

from scaffoldlab.cli.common import add_simulation, add_task, quiet, task_name


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    add_task(parser)
    parser.add_argument("--checkpoint", default="best", help="latest, best, or the path of an rsl_rl checkpoint")
    parser.add_argument("--out", type=Path, default=Path("policy.onnx"), help="file to write")
    add_simulation(parser)


def run(args: argparse.Namespace) -> None:
    """Opens the env once, for the sizes of the observations, and writes the file."""
    from scaffoldlab.cli.evaluate import find_checkpoint

    name = task_name(args.task)
    checkpoint = find_checkpoint(name, args.checkpoint)
    with quiet(args.out.with_suffix(".log")) as console:
        from scaffoldlab.deployment.export import export_policy, policy_metadata
        from scaffoldlab.tasks.simulation import open_env, with_default_presets
        from scaffoldlab.training import load_checkpoint, make_runner

        overrides = with_default_presets(args.overrides, args.device)
        with open_env(name, num_envs=1, device=args.device, seed=args.seed, overrides=overrides) as env:
            runner = make_runner(env, name, folder=None, seed=args.seed, overrides=list(overrides))
            load_checkpoint(runner, checkpoint)
            metadata = policy_metadata(env, name)
            export_policy(runner, metadata, args.out)
        console.print(
            f"{checkpoint} as {args.out}: {metadata.observation_size} observations, {metadata.action_size} actions",
            highlight=False,
        )
