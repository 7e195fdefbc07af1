"""``scaffoldlab deploy``: an exported policy follows a plan on a robot, with a pose tracker."""

import argparse
import contextlib
import json
import logging
from pathlib import Path

from scaffoldlab.cli.common import add_task, quiet, task_name
from scaffoldlab.errors import ScaffoldError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    add_task(parser)
    parser.add_argument("--policy", type=Path, required=True, help="file written by `scaffoldlab export`")
    parser.add_argument("--plan", required=True, metavar="LIB[:INDEX]", help="plan library, and which plan of it")
    parser.add_argument("--capture", type=Path, required=True, help="capture folder: rgb, depth, cam_K, camera_in_env")
    parser.add_argument("--depth-unit", type=float, default=0.001, help="metres that a depth of 1 stands for")
    parser.add_argument("--tracker", type=Path, required=True, help="folder that the pose tracker writes")
    parser.add_argument("--robot", required=True, help="udp://host:port")
    parser.add_argument("--patience", type=float, default=30.0, help="longest hold before giving up [s]")
    parser.add_argument("--out", type=Path, default=Path("outputs/deployment"), help="folder of picture and report")


def run(args: argparse.Namespace) -> None:
    """Draws the plan on the capture, then carries it out."""
    from scaffoldlab.deployment.capture import CaptureFolder
    from scaffoldlab.deployment.policy import OnnxPolicy
    from scaffoldlab.deployment.tracker import ObInCamFolder
    from scaffoldlab.deployment.udp_robot import UdpRobot
    from scaffoldlab.files import write_atomic
    from scaffoldlab.plans.draw import draw_plan
    from scaffoldlab.specs.models import load_task

    composition = load_task(task_name(args.task))
    plan = read_plan(args.plan, composition.task.name)
    policy = OnnxPolicy(args.policy)
    image = CaptureFolder(args.capture, depth_unit=args.depth_unit).capture()
    draw_plan(image, plan, path=args.out / "plan.png")
    with quiet(args.out / "console.log") as console:
        console.print(f"the plan on the capture: {args.out / 'plan.png'}", highlight=False)
        from scaffoldlab.deployment.loop import Deployment, DeploymentLimits, logger, tracked_bodies

        shown = logging.StreamHandler(console.file)
        shown.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(shown)
        tracker = ObInCamFolder(args.tracker, tracked_bodies(composition, plan))
        try:
            with contextlib.closing(UdpRobot(args.robot, policy.metadata.joint_names)) as robot:
                deployment = Deployment(
                    composition, policy=policy, metadata=policy.metadata, plan=plan, robot=robot, tracker=tracker,
                    pose_ec=image.camera.pose_ec, limits=DeploymentLimits(patience=args.patience),
                )  # fmt: skip
                try:
                    deployment.run()
                finally:  # what happened is asked for most when it did not end well
                    report = deployment.report
                    write_atomic(args.out / "report.json", json.dumps(report.as_json(), indent=1))
                    console.print(
                        f"{report.steps} steps in {report.seconds:.1f} s, {report.late} late, {len(report.holds)} "
                        f"holds: {args.out / 'report.json'}",
                        highlight=False,
                    )
        finally:
            logger.removeHandler(shown)


def read_plan(given: str, task: str):
    """The plan that ``LIB`` or ``LIB:INDEX`` names.

    Raises:
        ScaffoldError: No such library, or no such plan in it.
    """
    from scaffoldlab.plans.library import PlanLibrary

    path, _, index = given.rpartition(":")
    if not path or not index.isdigit():
        path, index = given, "0"
    library = PlanLibrary.load(path, task=task)
    if int(index) >= len(library):
        raise ScaffoldError(f"--plan {given}: the library has {len(library)} plans; allowed: 0 to {len(library) - 1}.")
    return library.plans[int(index)]
