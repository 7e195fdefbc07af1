"""``scaffoldlab scan scene`` and ``scaffoldlab scan new-task``: from a capture to a scene, and on to a task."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from scaffoldlab.cli.common import print_findings, progress_bar, quiet
from scaffoldlab.errors import ScaffoldError
from scaffoldlab.files import cache_folder, refuse_existing
from scaffoldlab.specs.paths import ROOT, roots

if TYPE_CHECKING:
    from rich.progress import TaskID

    from scaffoldlab.scan.scenes.scene import SceneSettings


def add_scene_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``scan scene``."""
    parser.add_argument("capture", type=Path, help="folder of the capture, or .r3d file")
    parser.add_argument(
        "--objects", type=Path, nargs="+", required=True, help="objects: folders NAME with NAME.usda, or USD files"
    )
    parser.add_argument("--name", default=None, help="name of the scene; by default that of --out")
    parser.add_argument("--out", type=Path, default=None, help="folder to write; by default assets/scenes/NAME")
    parser.add_argument("--overwrite", action="store_true", help="replace --out if it is there")
    parser.add_argument("--without", nargs="+", default=[], metavar="OBJECT", help="objects to leave out")
    parser.add_argument("--cloud", type=Path, default=None, help="point cloud of what does not move [m]")
    parser.add_argument("--up", default="auto", help="up in the capture: an axis or x,y,z; auto is the table's normal")
    parser.add_argument("--table-height", type=float, default=0.75, help="height of the table above the floor [m]")
    parser.add_argument("--depth-unit", type=float, default=None, help="metres of a depth of 1; by default found out")
    parser.add_argument("--depth-max", type=float, default=2.5, help="depth beyond which nothing is believed [m]")
    parser.add_argument("--voxel", type=float, default=0.005, help="side of a voxel of the background [m]")
    parser.add_argument("--frames", type=int, default=100, help="frames that the background is fused from, at most")
    parser.add_argument("--no-settle", action="store_true", help="do not let the objects fall in simulation")


def run_scene(args: argparse.Namespace) -> None:
    """Scans the scene and says what was found."""
    name, out = _name_and_out(args.name, args.out)
    refuse_existing(out, overwrite=args.overwrite)
    from scaffoldlab.scan.captures.capture import read_capture
    from scaffoldlab.scan.captures.checks import examine_capture
    from scaffoldlab.scan.findings import refuse_errors
    from scaffoldlab.scan.scenes.objects import find_objects
    from scaffoldlab.scan.scenes.scene import scan_scene, write_scene

    settings, objects = _settings(args), find_objects(args.objects)
    capture = read_capture(args.capture, depth_unit=args.depth_unit)
    with quiet(scan_log()) as console:
        with progress_bar(console) as bar:
            jobs: dict[str, TaskID] = {}

            def on_step(step: str, done: int, total: int) -> None:
                if step not in jobs:
                    jobs[step] = bar.add_task(step, total=total)
                bar.update(jobs[step], completed=done)

            on_step("examine", 0, 1)
            # The scan turns the world by the table itself, so that its tilt is none of the user's business.
            checks = [f for f in examine_capture(capture, without=settings.without) if f.check != "gravity"]
            refuse_errors(str(args.capture), checks)
            scene = scan_scene(capture, objects, settings, checks=checks, on_step=on_step)
            if not args.no_settle:
                from scaffoldlab.scan.scenes.settle import settle_scene

                on_step("settling", 0, 1)
                scene = settle_scene(scene)
            on_step("report", 0, 1)
            spec = write_scene(scene, out, name=name, usd_folder=f"scenes/{name}", overwrite=args.overwrite)
            for job in jobs.values():
                bar.update(job, completed=bar.tasks[job].total)
        print_findings(console, scene.findings)
        console.print(f"{len(spec.keypoints)} keypoints to choose from: {out / 'scene.yaml'}", highlight=False)
        console.print(f"report: {out / 'report' / 'index.html'}", highlight=False)
        root = out.resolve().parents[2]
        if root not in [r.resolve() for r in roots()]:
            console.print(f"tasks find the scene with SCAFFOLDLAB_PATH={root}", highlight=False)


def add_new_task_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``scan new-task``."""
    parser.add_argument("scene", help="name of a scene, or its folder")
    parser.add_argument("--instruction", required=True, help='the sentence, e.g. "Move the apple to the plate."')
    parser.add_argument("--object", default=None, help="what is moved; by default what the instruction names first")
    parser.add_argument("--goal", default=None, help="asset or keypoint that it is moved to")
    parser.add_argument("--name", default=None, help="name of the task; by default from the object and the scene")
    parser.add_argument("--overwrite", action="store_true", help="replace the task if it is there")


def run_new_task(args: argparse.Namespace) -> None:
    """Writes the task and says what can be done with it."""
    from scaffoldlab.scan.scenes.new_task import write_task

    path = write_task(
        args.scene,
        instruction=args.instruction,
        moved=args.object,
        goal=args.goal,
        name=args.name,
        overwrite=args.overwrite,
    )
    print(f"{path}")
    print(f"next: scaffoldlab plan --task {path.parent.name} --num-plans 4, then scaffoldlab train")


def _name_and_out(name: str | None, out: Path | None) -> tuple[str, Path]:
    """Name and folder of the scene; one of them follows from the other."""
    if name is None and out is None:
        raise ScaffoldError("scan scene: give --name, or the folder as --out assets/scenes/NAME.")
    if out is None:
        out = ROOT / "assets" / "scenes" / str(name)
    where = out.resolve()
    if name not in (None, where.name) or (where.parent.name, where.parent.parent.name) != ("scenes", "assets"):
        raise ScaffoldError(
            f"scan scene: --out is {out}{f' and --name {name}' if name else ''}; allowed: a folder assets/scenes/NAME, "
            "so that tasks find the scene by its name. Its assets/ may be in any folder of SCAFFOLDLAB_PATH."
        )
    if not where.name.isidentifier():
        raise ScaffoldError(f"scan scene: the name is {where.name!r}; allowed: letters, digits and underscores.")
    return where.name, out


def _settings(args: argparse.Namespace) -> "SceneSettings":
    from scaffoldlab.scan.scenes.scene import SceneSettings
    from scaffoldlab.scan.up import up_direction

    for option in ("depth_max", "voxel", "frames"):
        if not getattr(args, option) > 0:
            raise ScaffoldError(
                f"scan scene: --{option.replace('_', '-')} is {getattr(args, option)}; allowed: above 0."
            )
    return SceneSettings(
        up=up_direction(args.up),
        cloud=args.cloud,
        table_height=args.table_height,
        voxel=args.voxel,
        depth_max=args.depth_max,
        frames_max=args.frames,
        without=tuple(args.without),
    )


def scan_log() -> Path:
    """Where what libraries print goes."""
    return cache_folder() / "scan" / "scan.log"
