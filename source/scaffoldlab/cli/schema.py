"""``scaffoldlab schema``: the JSON Schema of a YAML file, for editors."""

import argparse
import json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("kind", nargs="?", choices=["task", "scene", "robot"], default="task", help="kind of file")


def run(args: argparse.Namespace) -> None:
    """Prints the schema."""
    from scaffoldlab.specs.models import RobotSpec, SceneSpec, TaskSpec

    model = {"task": TaskSpec, "scene": SceneSpec, "robot": RobotSpec}[args.kind]
    print(json.dumps(model.model_json_schema(), indent=2))
