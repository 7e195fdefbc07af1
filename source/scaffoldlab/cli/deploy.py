"""``scaffoldlab deploy``: an exported policy follows a plan on a robot, with a pose tracker."""

import argparse
import contextlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from scaffoldlab.cli.common import add_task, quiet, task_name
from scaffoldlab.cli.plan import add_vlm, make_planner, refuse_options
from scaffoldlab.errors import ScaffoldError

if TYPE_CHECKING:
    import numpy as np
    from rich.console import Console

    from scaffoldlab.camera import RgbdImage
    from scaffoldlab.deployment.capture import CaptureFolder
    from scaffoldlab.deployment.loop import DeploymentReport
    from scaffoldlab.deployment.policy import OnnxPolicy
    from scaffoldlab.plans.plan import Plan
    from scaffoldlab.specs.models import Composition


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    add_task(parser)
    parser.add_argument("--policy", type=Path, required=True, help="file written by `scaffoldlab export`")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--plan", metavar="LIB[:INDEX]", help="plan library, and which plan of it")
    source.add_argument("--planner", choices=["vlm", "replay", "scripted"], help="who plans, from the capture")
    parser.add_argument("--capture", type=Path, required=True, help="capture folder: rgb, depth, cam_K, camera_in_env")
    parser.add_argument("--depth-unit", type=float, default=0.001, help="metres that a depth of 1 stands for")
    parser.add_argument("--tracker", type=Path, required=True, help="folder that the pose tracker writes")
    parser.add_argument("--robot", required=True, help="udp://host:port")
    parser.add_argument("--patience", type=float, default=30.0, help="longest hold before giving up [s]")
    parser.add_argument("--out", type=Path, default=Path("outputs/deployment"), help="folder of picture and report")
    parser.add_argument("--plan-only", action="store_true", help="plan and draw, to look at, and leave the robot alone")
    parser.add_argument("--waypoints", type=int, default=None, help="waypoints of a plan; by default the oracle's")
    parser.add_argument("--ledger", type=Path, default=None, help="file of recorded calls; by default in --out")
    add_vlm(parser)


def run(args: argparse.Namespace) -> None:
    """Makes or reads the plan, draws it on the capture, then carries it out."""
    from scaffoldlab.deployment.capture import CaptureFolder
    from scaffoldlab.deployment.policy import OnnxPolicy
    from scaffoldlab.plans.draw import draw_plan
    from scaffoldlab.specs.models import load_task

    refuse_options(args, args.planner, "--planner")
    if args.plan and (args.waypoints or args.ledger):
        raise ScaffoldError("deploy: --waypoints and --ledger are for --planner; leave them out beside --plan.")
    composition = load_task(task_name(args.task))
    with quiet(args.out / "console.log") as console, kept_report(args.out / "report.json", console) as report:
        plan = read_plan(args.plan, composition.task.name) if args.plan else None
        policy = OnnxPolicy(args.policy)
        camera = CaptureFolder(args.capture, depth_unit=args.depth_unit)
        if plan is None:
            plan, image = make_plan(composition, camera, policy, args, console)
        else:
            image = camera.capture()
        draw_plan(image, plan, path=args.out / "plan.png")
        console.print(f"the plan on the capture: {args.out / 'plan.png'}", highlight=False)
        if not args.plan_only:
            carry_out(composition, plan, image.camera.pose_ec, policy, args, console, report)


@contextlib.contextmanager
def kept_report(path: Path, console: "Console") -> "Iterator[DeploymentReport]":
    """A report that is written however the block ends; one of an earlier run is removed before.

    Nothing is written where neither the loop nor an error has ended it: the plan was only to be looked at.
    """
    from scaffoldlab.deployment.loop import DeploymentReport
    from scaffoldlab.files import write_atomic

    path.unlink(missing_ok=True)
    report = DeploymentReport()
    try:
        with report.noting():
            yield report
    finally:  # what happened is asked for most when it did not end well
        if report.ended:
            write_atomic(path, json.dumps(report.as_json(), indent=1))
            console.print(
                f"{report.steps} steps in {report.seconds:.1f} s, {report.late} late, {len(report.holds)} holds: "
                f"{path}",
                highlight=False,
            )


def make_plan(
    composition: "Composition", camera: "CaptureFolder", policy: "OnnxPolicy", args: argparse.Namespace,
    console: "Console",
) -> tuple["Plan", "RgbdImage"]:  # fmt: skip
    """A plan from the newest picture, kept as a library of one, and the picture (Scaffolds, appendix C.1)."""
    from scaffoldlab.deployment.loop import check_fit, tracked_bodies
    from scaffoldlab.deployment.planning import plan_from_capture
    from scaffoldlab.deployment.tracker import ObInCamFolder
    from scaffoldlab.deployment.udp_robot import UdpRobot
    from scaffoldlab.plans import library

    check_fit(composition, policy.metadata)  # before a model is paid
    planner = make_planner(composition, args, args.ledger or args.out / "ledger.jsonl")
    tracker = ObInCamFolder(args.tracker, tracked_bodies(composition))
    # A connection of its own: what a robot sends while a model thinks would be old when the loop reads it.
    with contextlib.closing(UdpRobot(args.robot, policy.metadata.joint_names)) as robot:
        plan, image = plan_from_capture(
            composition, planner, camera=camera, tracker=tracker, robot=robot, steps=policy.metadata.episode_steps,
            waypoint_count=args.waypoints, patience=args.patience,
        )  # fmt: skip
    if plan.provenance.get("prompt_differs"):
        raise ScaffoldError(
            f"deploy: the replies of {args.ledger or args.out / 'ledger.jsonl'} are about another picture or another "
            "start, and would send the hand there. Plan anew (--planner vlm), or give a plan that was kept (--plan)."
        )
    plans = library.PlanLibrary((plan,), {"planner": planner.name, "capture": str(args.capture)} | planner.header)
    path = plans.save(args.out / f"{composition.task.name}.plans.npz")
    console.print(f"a plan by {planner.name}: {path}", highlight=False)
    if args.plan_only:
        console.print(f"to carry it out give --plan {path} in the place of --planner", highlight=False)
    return plan, image


def carry_out(
    composition: "Composition", plan: "Plan", pose_ec: "np.ndarray", policy: "OnnxPolicy", args: argparse.Namespace,
    console: "Console", report: "DeploymentReport",
) -> None:  # fmt: skip
    """Runs the loop, whose holds are shown."""
    from scaffoldlab.deployment.loop import Deployment, DeploymentLimits, logger, tracked_bodies
    from scaffoldlab.deployment.tracker import ObInCamFolder
    from scaffoldlab.deployment.udp_robot import UdpRobot

    tracker = ObInCamFolder(args.tracker, tracked_bodies(composition, plan))
    shown = logging.StreamHandler(console.file)
    shown.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(shown)
    try:
        with contextlib.closing(UdpRobot(args.robot, policy.metadata.joint_names)) as robot:
            deployment = Deployment(
                composition, policy=policy, metadata=policy.metadata, plan=plan, robot=robot, tracker=tracker,
                pose_ec=pose_ec, limits=DeploymentLimits(patience=args.patience), report=report,
            )  # fmt: skip
            deployment.run()
    finally:
        logger.removeHandler(shown)


def read_plan(given: str, task: str) -> "Plan":
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
