"""``scaffoldlab scan``: what a scanner left on disk becomes an object, a scene, a task; a doctor looks at it first."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from scaffoldlab.cli.common import print_findings, progress_bar, quiet
from scaffoldlab.cli.scan_scene import add_new_task_arguments, add_scene_arguments, run_new_task, run_scene, scan_log
from scaffoldlab.errors import ScaffoldError
from scaffoldlab.scan.findings import Finding
from scaffoldlab.specs.paths import ROOT

if TYPE_CHECKING:
    from scaffoldlab.scan.objects.object import ObjectSettings

INPUT = "mesh (obj, glb, gltf, usd, usdz, ply, stl) or BundleSDF out folder"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    actions = {
        "object": (
            "make a simulation-ready object from a mesh or a BundleSDF folder",
            add_object_arguments,
            run_object,
        ),
        "objects": ("make several objects at a time", add_objects_arguments, run_objects),
        "scene": ("make a scene from a capture and its objects", add_scene_arguments, run_scene),
        "new-task": ("write a task over a scanned scene", add_new_task_arguments, run_new_task),
        "doctor": ("examine a mesh or a capture, and write nothing", add_doctor_arguments, run_doctor),
    }
    subparsers = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, (help_text, add, action) in actions.items():
        subparser = subparsers.add_parser(
            name, help=help_text, description=help_text[0].upper() + help_text[1:] + ".",
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )  # fmt: skip
        add(subparser)
        subparser.set_defaults(scan_action=action)


def run(args: argparse.Namespace) -> int | None:
    """Runs the action."""
    return args.scan_action(args)


def add_object_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``scan object``."""
    parser.add_argument("input", type=Path, help=INPUT)
    parser.add_argument("--name", required=True, help="name of the object: letters, digits and underscores")
    parser.add_argument("--out", type=Path, default=None, help="folder to write; by default assets/objects/NAME")
    _add_reading(parser)
    _add_making(parser)


def add_objects_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``scan objects``."""
    parser.add_argument("inputs", type=Path, nargs="+", metavar="input", help=f"{INPUT}; its name is the object's")
    parser.add_argument("--out", type=Path, default=None, help="folder of the objects; by default assets/objects")
    parser.add_argument("--jobs", type=int, default=2, help="objects scanned at the same time")
    _add_reading(parser)
    _add_making(parser)


def run_object(args: argparse.Namespace) -> None:
    """Scans the object and says what was found."""
    from scaffoldlab.scan.objects.object import scan_object

    out = args.out or ROOT / "assets" / "objects" / args.name
    with quiet(scan_log()) as console, console.status("read") as status:
        report = scan_object(
            args.input, args.name, out, _settings(args), overwrite=args.overwrite, on_step=status.update
        )
        status.stop()
        _print_report(console, out, report)


def run_objects(args: argparse.Namespace) -> int:
    """Scans the objects and says what was found; the exit code is 1 if any failed."""
    from scaffoldlab.scan.objects.batch import name_sources, scan_objects

    if args.jobs < 1:
        raise ScaffoldError(f"scan objects: --jobs is {args.jobs}; allowed: at least 1.")
    sources, settings = name_sources(args.inputs), _settings(args)
    out = args.out or ROOT / "assets" / "objects"
    with quiet(scan_log()) as console:
        with progress_bar(console) as bar:
            job = bar.add_task("objects", total=len(sources))
            made = scan_objects(
                sources, out, settings, overwrite=args.overwrite, jobs=args.jobs, on_done=lambda name: bar.advance(job)
            )
        for name, report in made.items():
            console.rule(name, align="left")
            if isinstance(report, ScaffoldError):
                console.print(f"[red]failed[/]: {escape(str(report))}", highlight=False)
            else:
                _print_report(console, out / name, report)
    return 1 if any(isinstance(report, ScaffoldError) for report in made.values()) else 0


def _print_report(console: Console, out: Path, report: dict[str, Any]) -> None:
    print_findings(console, [Finding(**finding) for finding in report["findings"]])
    unchanged = " (unchanged)" if report["cached"] else ""
    console.print(f"object: {out / report['name']}.usda{unchanged}", highlight=False, markup=False)
    console.print(f"report: {out / 'index.html'}", highlight=False, markup=False)


def add_doctor_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``scan doctor``."""
    parser.add_argument("input", type=Path, help=f"{INPUT}, or capture (a folder, or .r3d)")
    _add_reading(parser)
    parser.add_argument("--depth-unit", type=float, default=None, help="metres of a depth of 1; by default found out")
    parser.add_argument("--fix", type=Path, default=None, metavar="FILE", help="write the mended mesh, in metres")


def run_doctor(args: argparse.Namespace) -> int:
    """Examines a mesh or a capture; the exit code is 1 if nothing can be made of it."""
    from scaffoldlab.scan.objects.object import ObjectSettings, examine_object, write_mended

    with quiet(scan_log()) as console:
        findings: list[Finding] = []
        mesh, capture = _kinds(args.input)
        examination = examine_object(args.input, ObjectSettings(**_reading(args))) if mesh else None
        if examination:
            findings += examination.findings
            console.print(f"mesh: {examination.scan.path}", highlight=False, markup=False)
        if capture:
            from scaffoldlab.scan.captures.checks import examine_capture

            findings += examine_capture(args.input, depth_unit=args.depth_unit)
        print_findings(console, findings)
        if args.fix is not None:
            if not examination:
                raise ScaffoldError(f"--fix: {args.input} is a capture; a scan leaves out its bad frames by itself.")
            write_mended(examination, args.fix)
            console.print(f"mended: {args.fix}", highlight=False, markup=False)
    return 1 if any(f.severity == "error" and not f.fixed_by for f in findings) else 0


def _kinds(source: Path) -> tuple[bool, bool]:
    """Whether a path holds a mesh, and whether it holds pictures."""
    from scaffoldlab.scan.captures.capture import ARCHIVE
    from scaffoldlab.scan.objects.reading import BUNDLESDF_METRIC, BUNDLESDF_NORMALISED, FORMATS

    if not source.is_dir():
        recording = source.suffix.lower() == ARCHIVE
        return not recording, recording
    names = (*BUNDLESDF_METRIC, *BUNDLESDF_NORMALISED)
    mesh = any((source / n).is_file() for n in names) or any(p.suffix.lower() in FORMATS for p in source.iterdir())
    pictures = any(p.is_dir() and p.name in ("rgb", "rgbd", "color", "keyframes") for p in source.glob("*"))
    pictures = pictures or any(source.glob("*/rgb"))
    return mesh or not pictures, pictures


def _add_reading(parser: argparse.ArgumentParser) -> None:
    from scaffoldlab.scan.objects.reading import METRES

    parser.add_argument("--units", default="auto", choices=("auto", *METRES), help="unit of the file")
    parser.add_argument(
        "--size", type=float, default=None, help="longest side of the real object [m], instead of --units"
    )
    parser.add_argument(
        "--up", default="auto", help="up in the file: an axis, or a direction x,y,z (--up=-y for a negative one)"
    )
    parser.add_argument("--density", type=float, default=600.0, help="density [kg/m^3]")
    parser.add_argument("--mass", type=float, default=None, help="mass [kg], instead of --density")
    parser.add_argument("--hollow", type=float, default=None, metavar="WALL", help="hollow, with walls this thick [m]")


def _reading(args: argparse.Namespace) -> dict:
    return dict(units=args.units, size=args.size, up=args.up, density=args.density, mass=args.mass, wall=args.hollow)


def _add_making(parser: argparse.ArgumentParser) -> None:
    from scaffoldlab.scan.drop import ENGINES
    from scaffoldlab.scan.objects.object import ObjectSettings

    defaults = ObjectSettings()
    parser.add_argument("--overwrite", action="store_true", help="replace --out if it is there")
    parser.add_argument("--friction", type=float, default=defaults.friction, help="Coulomb friction")
    parser.add_argument(
        "--visual-faces", type=int, default=defaults.visual_faces, help="faces that cameras see at most"
    )
    parser.add_argument(
        "--collider-threshold", type=float, default=defaults.collider_threshold, help="less gives more hulls"
    )
    parser.add_argument("--collider-timeout", type=float, default=defaults.collider_timeout, help="seconds for CoACD")
    parser.add_argument("--hulls", action="store_true", help="convex hulls even where one primitive fits")
    parser.add_argument("--urdf", action="store_true", help="write NAME.urdf too")
    parser.add_argument("--mjcf", action="store_true", help="write NAME.xml for MuJoCo too")
    parser.add_argument("--engines", nargs="*", default=list(ENGINES), choices=ENGINES, help="engines to drop it on")


def _settings(args: argparse.Namespace) -> ObjectSettings:
    from scaffoldlab.scan.objects.object import ObjectSettings

    return ObjectSettings(
        **_reading(args), friction=args.friction, visual_faces=args.visual_faces, primitives=not args.hulls,
        collider_threshold=args.collider_threshold, collider_timeout=args.collider_timeout,
        formats=tuple(name for name in ("urdf", "mjcf") if getattr(args, name)), engines=tuple(args.engines),
    )  # fmt: skip
