"""The command line: one module per command, imported only when it is used."""

import argparse
import importlib
import sys

from scaffoldlab import __version__
from scaffoldlab.errors import ScaffoldError
from scaffoldlab.files import DISK_ERRORS, what_next

COMMANDS = {
    "doctor": "tell what works on this machine, and the fix for what does not",
    "plan": "make a plan library: scripted or perturbed oracle, vision-language model, or recorded replies",
    "keypoints": "ask a model which keypoints a task needs and where they are, in the form of task.yaml",
    "refine": "refine a model's plans by showing it those that the policy carried out well",
    "train": "train a policy, keeping the best checkpoint by evaluation",
    "evaluate": "evaluate a checkpoint beside its baselines and write a report",
    "imitate": "train a diffusion policy on rollouts of a trained policy",
    "experiment": "run an experiment of the paper and write its tables",
    "scan": "turn scans into simulation-ready objects, scenes and tasks",
    "export": "write a checkpoint as one ONNX file that says what it sees and what its actions mean",
    "deploy": "run an exported policy on a robot, with a pose tracker",
    "demo": "plan, train, evaluate and report, from nothing",
    "schema": "print the JSON Schema of task.yaml, for editors",
}


def main(argv: list[str] | None = None) -> int:
    """Runs a command and returns its exit code."""
    parser = argparse.ArgumentParser(prog="scaffoldlab", description=__doc__)
    parser.add_argument("--version", action="version", version=f"scaffoldlab {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    arguments = sys.argv[1:] if argv is None else argv
    asked = next((a for a in arguments if a in COMMANDS), None)
    for name, help_text in COMMANDS.items():
        subparser = subparsers.add_parser(
            name, help=help_text, description=help_text[0].upper() + help_text[1:] + ".",
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )  # fmt: skip
        if name == asked:
            importlib.import_module(f"scaffoldlab.cli.{name}").add_arguments(subparser)
    args = parser.parse_args(arguments)
    try:
        return importlib.import_module(f"scaffoldlab.cli.{args.command}").run(args) or 0
    except ScaffoldError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        where = f"{error.filename}: " if error.filename else ""
        print(
            f"error: {where}{error.strerror}; what was finished before is kept. {what_next(error)}, "
            "then run the same command to go on.", file=sys.stderr,
        )  # fmt: skip
        return 1
    except KeyboardInterrupt:
        print("interrupted; what was finished is kept, run the same command to go on", file=sys.stderr)
        return 130
