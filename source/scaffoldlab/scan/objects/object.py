"""From a scanned mesh to a simulation-ready object: read, mend, weigh, set upright, fit colliders, write, check."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import trimesh

from scaffoldlab import __version__
from scaffoldlab.errors import ScaffoldError
from scaffoldlab.files import refuse_existing, write_atomic, write_folder
from scaffoldlab.scan.findings import Finding, refuse_errors
from scaffoldlab.scan.keypoint_candidates import extremities
from scaffoldlab.scan.names import refuse_name
from scaffoldlab.scan.objects.appearance import make_visual
from scaffoldlab.scan.objects.colliders import Colliders, make_colliders
from scaffoldlab.scan.objects.files import ScannedObject, write_mjcf, write_urdf, write_usd
from scaffoldlab.scan.objects.inertia import Inertia, inertia_of
from scaffoldlab.scan.objects.reading import Scan, read_scan
from scaffoldlab.scan.objects.resting import resting_pose
from scaffoldlab.scan.objects.settling import Settling, settle_object
from scaffoldlab.scan.objects.solid import Solid, make_solid
from scaffoldlab.scan.objects.units import Units, decide_units
from scaffoldlab.scan.up import up_direction

KEYPOINT_TIPS = 4


@dataclass(frozen=True, kw_only=True)
class ObjectSettings:
    """What a scan of an object may be told.

    Attributes:
        units: ``auto`` or a unit.
        size: Longest side of the real object [m], instead of a unit.
        up: ``auto`` or the direction of the file that points up: an axis or x,y,z.
        density: Density [kg/m^3].
        mass: Mass [kg], instead of the density.
        wall: Wall of a hollow body [m]; None: full.
        friction: Coulomb friction.
        visual_faces: Faces that cameras see at most.
        collider_threshold: Concavity that CoACD leaves in a part.
        collider_timeout: Time for CoACD [s].
        primitives: Whether one primitive may stand for the object.
        formats: Further files: ``urdf``, ``mjcf``.
        engines: Engines that it is dropped on; none: it is not dropped.
    """

    units: str = "auto"
    size: float | None = None
    up: str = "auto"
    density: float = 600.0
    mass: float | None = None
    wall: float | None = None
    friction: float = 0.8
    visual_faces: int = 10_000
    collider_threshold: float = 0.03
    collider_timeout: float = 120.0
    primitives: bool = True
    formats: tuple[str, ...] = ()
    engines: tuple[str, ...] = ("ovphysx", "newton_mjwarp")

    def __post_init__(self) -> None:
        up_direction(self.up)
        limits = {"density": (1, 25_000), "mass": (1e-4, 1e3), "wall": (1e-4, 0.1), "friction": (0, 10),
                  "visual_faces": (100, 10**6), "collider_threshold": (0.01, 1),
                  "collider_timeout": (1, 3600)}  # fmt: skip
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                option = {"wall": "hollow"}.get(name, name).replace("_", "-")
                raise ScaffoldError(f"scan object: --{option} is {value:g}; allowed: {low:g} to {high:g}.")


@dataclass(frozen=True, eq=False)
class RestingBody:
    """A solid on its own in the axes of the file.

    Attributes:
        solid: Its clean surface [m].
        inertia: How heavy it is.
        pose: Axes of the file to the body frame, where it stands upright, shape (4, 4).
    """

    solid: Solid
    inertia: Inertia
    pose: np.ndarray


@dataclass(frozen=True, eq=False)
class Examination:
    """What a mesh is, before anything is made of it.

    Attributes:
        scan: The mesh as it was found.
        units: Its unit.
        body: The solid that it stands for, or why there is none.
        findings: What was found.
    """

    scan: Scan
    units: Units
    body: RestingBody | ScaffoldError
    findings: list[Finding]

    def usable_body(self) -> RestingBody:
        """The solid.

        Raises:
            ScaffoldError: There is none, or its size is not known.
        """
        refuse_errors(str(self.scan.path), [self.units.finding])
        if isinstance(self.body, ScaffoldError):
            raise self.body
        return self.body


@dataclass(frozen=True, eq=False)
class ObjectScan:
    """Everything that a scan of an object has found.

    Attributes:
        scan: The mesh as it was found.
        units: Its unit.
        solid: Its clean surface in the body frame [m].
        object: What is written.
        colliders: Its colliders.
        settling: How it came to rest, by engine.
        findings: What was found, for the report.
    """

    scan: Scan
    units: Units
    solid: Solid
    object: ScannedObject
    colliders: Colliders
    settling: dict[str, Settling]
    findings: list[Finding]


def scan_object(
    source: Path,
    name: str,
    out: Path,
    settings: ObjectSettings | None = None,
    *,
    overwrite: bool = False,
    on_step: Callable[[str], object] = lambda step: None,
) -> dict[str, Any]:
    """Makes an object's folder: USD, texture, keypoints, thumbnail, report; all of it or nothing.

    The same input with the same settings is not done again.

    Args:
        source: Mesh, or out folder of BundleSDF.
        name: Name of the object, of its files and prims.
        out: Folder to write.
        settings: What the scan is told.
        overwrite: Whether a folder that is there is replaced.
        on_step: Called with the name of each step as it begins.

    Returns:
        What ``report.json`` says, and ``cached``.

    Raises:
        ScaffoldError: The input is no usable mesh, the name no name, the folder taken, the disk full.
    """
    settings = settings or ObjectSettings()
    refuse_name(name)
    started = time.monotonic()
    on_step("read")
    scan = read_scan(source)
    digest = _digest(scan, name, settings)
    if (report := _cached(out, digest)) is not None:
        return report | {"cached": True}
    refuse_existing(out, overwrite=overwrite)
    from scaffoldlab.scan.objects.report import report_values, write_object_report

    made = _make(scan, name, settings, digest, on_step)
    with write_folder(out, overwrite=overwrite) as folder:
        usd = write_usd(made.object, folder)
        for form in settings.formats:
            {"urdf": write_urdf, "mjcf": write_mjcf}[form](made.object, folder)
        if settings.engines:
            on_step("drop")
            made.settling.update(settle_object(usd, made.colliders.parts, settings.engines))
            made.findings.extend(s.finding(engine) for engine, s in made.settling.items())
        on_step("report")
        report = report_values(made, digest=digest, seconds=time.monotonic() - started)
        write_object_report(folder, made, report)
    return report | {"cached": False}


def examine_object(source: Path, settings: ObjectSettings | None = None) -> Examination:
    """What ``scan doctor`` says about a mesh: everything that a scan would find before it writes.

    Raises:
        ScaffoldError: It cannot be read at all.
    """
    return _examine(read_scan(source), settings or ObjectSettings())


def write_mended(examination: Examination, target: Path) -> None:
    """Writes the clean surface of a scan in metres, set upright, with its texture.

    Raises:
        ScaffoldError: Nothing can be made of the scan, or ``target`` is the scan itself or of another format.
    """
    scan = examination.scan
    if target.suffix.lower() not in (".glb", ".ply", ".stl"):
        raise ScaffoldError(f"--fix {target}: allowed: a file that ends in .glb (with texture), .ply or .stl.")
    if target.resolve() == scan.path.resolve():
        raise ScaffoldError(f"--fix {target}: this is the scan itself; give another file.")
    body = examination.usable_body()
    whole = body.solid.mesh
    mesh = make_visual(scan, whole, examination.units.scale, len(whole.faces)).apply_transform(body.pose)
    if target.suffix.lower() == ".glb":  # whose y is up
        mesh.apply_transform(trimesh.transformations.rotation_matrix(-np.pi / 2, [1, 0, 0]))
    write_atomic(target, mesh.export(file_type=target.suffix[1:].lower()))


def _examine(scan: Scan, settings: ObjectSettings, name: str | None = None) -> Examination:
    units = decide_units(scan, given=settings.units, size=settings.size, name=name)
    findings = [units.finding, *_surface_findings(scan)]
    try:
        solid = make_solid(scan.mesh.vertices * units.scale, scan.mesh.faces, str(scan.path))
    except ScaffoldError as error:
        findings.append(Finding(check="solid", severity="error", seen=str(error), fix="Scan it again"))
        return Examination(scan, units, error, findings)
    inertia = inertia_of(solid, density=settings.density, mass=settings.mass, wall=settings.wall)
    pose, upright = resting_pose(solid.mesh, inertia.center, up=settings.up, hint=scan.up)
    findings += [*solid.findings, upright, _weight(inertia, settings)]
    return Examination(scan, units, RestingBody(solid, inertia, pose), findings)


def _make(scan: Scan, name: str, settings: ObjectSettings, digest: str, on_step: Callable[[str], object]) -> ObjectScan:
    on_step("mend")
    examination = _examine(scan, settings, name)
    found, units, findings = examination.usable_body(), examination.units, examination.findings
    solid, inertia, pose = found.solid, found.inertia, found.pose
    on_step("look")
    visual = make_visual(scan, solid.mesh, units.scale, settings.visual_faces).apply_transform(pose)
    on_step("collide")
    body = Solid(solid.mesh.copy().apply_transform(pose), solid.findings)
    colliders = make_colliders(
        body, threshold=settings.collider_threshold, timeout=settings.collider_timeout, primitives=settings.primitives
    )
    findings.append(_fit(colliders))
    turn = pose[:3, :3]
    inertia = Inertia(inertia.mass, inertia.volume, np.zeros(3), turn @ inertia.tensor @ turn.T)
    facts = {
        "source": scan.path.name, "digest": digest, "scanner": f"scaffoldlab {__version__}",
        "units": f"{units.name}: {units.evidence}",
        "file_to_body": " ".join(f"{v:.9g}" for v in (pose @ np.diag([units.scale] * 3 + [1.0])).reshape(-1)),
    }  # fmt: skip
    made = ScannedObject(
        name=name, visual=visual, texture=scan.texture, parts=colliders.parts, inertia=inertia,
        friction=settings.friction, keypoints=keypoint_candidates(body.mesh), facts=facts,
    )  # fmt: skip
    return ObjectScan(scan, units, body, made, colliders, {}, findings)


def keypoint_candidates(mesh: trimesh.Trimesh) -> dict[str, np.ndarray]:
    """Extremities along the axes (IKER, section III-B), and the points that stick out furthest, as handles do.

    Args:
        mesh: Surface in the body frame [m].

    Returns:
        ``+x`` .. ``-z`` and ``tip 1`` .. ``tip 4``, body frame [m], shape (3,) each.
    """
    points = {label: np.asarray(point) for label, point in extremities(mesh).items()}
    surface = trimesh.sample.sample_surface(mesh, 4000, seed=0)[0]
    away = np.linalg.norm(surface - mesh.bounds.mean(0), axis=1)
    for number in range(1, KEYPOINT_TIPS + 1):
        tip = surface[away.argmax()]
        points[f"tip {number}"] = tip
        away = np.minimum(away, np.linalg.norm(surface - tip, axis=1))
    return points


def _surface_findings(scan: Scan) -> list[Finding]:
    """Whether the texture is there."""
    if scan.missing:
        names = ", ".join(scan.missing[:5])
        fix = "Put the files beside the mesh; without them it is grey"
        return [Finding(check="texture", severity="warning", seen=f"{names} not found or unreadable", fix=fix)]
    if scan.texture is None:
        return [
            Finding(check="texture", severity="warning", seen="none", fix="Export the mesh with UVs and its picture")
        ]
    width, height = scan.texture.size
    return [Finding(check="texture", severity="ok", seen=f"{width} x {height} pixels")]


def _weight(inertia: Inertia, settings: ObjectSettings) -> Finding:
    how = "given" if settings.mass is not None else f"{settings.density:g} kg/m3"
    seen = f"{1000 * inertia.mass:.0f} g ({how}), {1e6 * inertia.volume:.0f} cm3"
    if 0.005 <= inertia.mass <= 5:
        return Finding(check="mass", severity="ok", seen=seen)
    return Finding(check="mass", severity="warning", seen=seen, fix="Weigh it and say --mass, or check --units")


def _fit(colliders: Colliders) -> Finding:
    seen = (
        f"{colliders.kind} ({len(colliders.parts)}), volume {100 * colliders.volume_error:+.1f} %, "
        f"{100 * colliders.concavity_kept:.0f} % of the hollows kept"
    )
    if abs(colliders.volume_error) <= 0.15 and colliders.concavity_kept >= 0.8:
        return Finding(check="collider", severity="ok", seen=seen)
    return Finding(
        check="collider", severity="warning", seen=seen, fix="Ask for more detail with --collider-threshold 0.02"
    )


def _digest(scan: Scan, name: str, settings: ObjectSettings) -> str:
    """Digest of the geometry, the texture, the name and the settings."""
    digest = hashlib.sha256(json.dumps([__version__, name, asdict(settings), scan.unit, scan.up]).encode())
    digest.update(np.ascontiguousarray(scan.mesh.vertices).tobytes())
    digest.update(np.ascontiguousarray(scan.mesh.faces).tobytes())
    if scan.texture is not None:
        digest.update(scan.texture.tobytes())
    return digest.hexdigest()


def _cached(out: Path, digest: str) -> dict[str, Any] | None:
    """The report of an earlier scan of the same, if its folder is whole."""
    try:
        report = json.loads((out / "report.json").read_text())
    except (OSError, ValueError):
        return None
    if not isinstance(report, dict) or report.get("digest") != digest:
        return None
    return report if (out / f"{report['name']}.usda").is_file() else None
