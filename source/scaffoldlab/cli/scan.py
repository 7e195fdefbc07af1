"""``scaffoldlab scan``: what a scanner left on disk becomes an object, a scene, a task; a doctor looks at it first."""

import argparse
from pathlib import Path

from scaffoldlab.cli.common import print_findings, quiet
from scaffoldlab.cli.scan_scene import add_new_task_arguments, add_scene_arguments, run_new_task, run_scene
from scaffoldlab.errors import ScaffoldError
from scaffoldlab.files import cache_folder
from scaffoldlab.scan.findings import Finding


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    actions = {
        "object": (
            "make a simulation-ready object from a mesh or a BundleSDF folder",
            add_object_arguments,
            run_object,
        ),
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
    from scaffoldlab.scan.drop import ENGINES
    from scaffoldlab.scan.objects.object import ObjectSettings

    _add_reading(parser)
    defaults = ObjectSettings()
    parser.add_argument("--name", required=True, help="name of the object: letters, digits and underscores")
    parser.add_argument("--out", type=Path, default=None, help="folder to write; by default assets/objects/NAME")
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


def run_object(args: argparse.Namespace) -> None:
    """Scans the object and says what was found."""
    from scaffoldlab.scan.objects.object import ObjectSettings, scan_object
    from scaffoldlab.specs.paths import ROOT

    out = args.out or ROOT / "assets" / "objects" / args.name
    formats = tuple(name for name in ("urdf", "mjcf") if getattr(args, name))
    settings = ObjectSettings(
        **_reading(args), friction=args.friction, visual_faces=args.visual_faces, primitives=not args.hulls,
        collider_threshold=args.collider_threshold, collider_timeout=args.collider_timeout, formats=formats,
        engines=tuple(args.engines),
    )  # fmt: skip
    with quiet(cache_folder() / "scan" / "scan.log") as console, console.status("read") as status:
        report = scan_object(args.input, args.name, out, settings, overwrite=args.overwrite, on_step=status.update)
        status.stop()
        print_findings(console, [Finding(**finding) for finding in report["findings"]])
        console.print(
            f"object: {out / f'{args.name}.usda'}{' (unchanged)' if report['cached'] else ''}",
            highlight=False,
            markup=False,
        )
        console.print(f"report: {out / 'index.html'}", highlight=False, markup=False)


def add_doctor_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``scan doctor``."""
    _add_reading(parser)
    parser.add_argument("--depth-unit", type=float, default=None, help="metres of a depth of 1; by default found out")
    parser.add_argument("--fix", type=Path, default=None, metavar="FILE", help="write the mended mesh, in metres")


def run_doctor(args: argparse.Namespace) -> int:
    """Examines a mesh or a capture; the exit code is 1 if nothing can be made of it."""
    from scaffoldlab.scan.objects.object import ObjectSettings, examine_object, write_mended

    with quiet(cache_folder() / "scan" / "scan.log") as console:
        findings: list[Finding] = []
        mesh, capture = _kinds(args.input)
        settings = ObjectSettings(**_reading(args))
        if mesh:
            scan, found = examine_object(args.input, settings)
            findings += found
            console.print(f"mesh: {scan.path}", highlight=False, markup=False)
        if capture:
            from scaffoldlab.scan.captures.checks import examine_capture

            findings += examine_capture(args.input, depth_unit=args.depth_unit)
        print_findings(console, findings)
        if args.fix is not None:
            if not mesh:
                raise ScaffoldError(f"--fix: {args.input} is a capture; a scan leaves out its bad frames by itself.")
            write_mended(args.input, args.fix, settings)
            console.print(f"mended: {args.fix}", highlight=False, markup=False)
    return 1 if any(f.severity == "error" and not f.fixed_by for f in findings) else 0


def _kinds(source: Path) -> tuple[bool, bool]:
    """Whether a path holds a mesh, and whether it holds pictures."""
    from scaffoldlab.scan.objects.reading import BUNDLESDF_METRIC, BUNDLESDF_NORMALISED, FORMATS

    if not source.is_dir():
        return True, False
    names = (*BUNDLESDF_METRIC, *BUNDLESDF_NORMALISED)
    mesh = any((source / n).is_file() for n in names) or any(p.suffix.lower() in FORMATS for p in source.iterdir())
    pictures = any(p.is_dir() and p.name in ("rgb", "color", "keyframes") for p in source.glob("*"))
    pictures = pictures or any(source.glob("*/rgb"))
    return mesh or not pictures, pictures


def _add_reading(parser: argparse.ArgumentParser) -> None:
    from scaffoldlab.scan.objects.reading import METRES
    from scaffoldlab.scan.objects.resting import UPS

    parser.add_argument("input", type=Path, help="mesh (obj, glb, gltf, usd, usdz, ply, stl) or BundleSDF out folder")
    parser.add_argument("--units", default="auto", choices=("auto", *METRES), help="unit of the file")
    parser.add_argument(
        "--size", type=float, default=None, help="longest side of the real object [m], instead of --units"
    )
    parser.add_argument("--up", default="auto", choices=("auto", *UPS), help="axis of the file that points up")
    parser.add_argument("--density", type=float, default=600.0, help="density [kg/m^3]")
    parser.add_argument("--mass", type=float, default=None, help="mass [kg], instead of --density")
    parser.add_argument("--hollow", type=float, default=None, metavar="WALL", help="hollow, with walls this thick [m]")


def _reading(args: argparse.Namespace) -> dict:
    return dict(units=args.units, size=args.size, up=args.up, density=args.density, mass=args.mass, wall=args.hollow)
