"""Writes the report of a scanned object: report.json, a thumbnail, and one page that needs nothing else."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from scaffoldlab.camera import Camera
from scaffoldlab.files import write_atomic
from scaffoldlab.scan.objects.object import ObjectScan
from scaffoldlab.scan.objects.settling import as_record
from scaffoldlab.scan.render import Renderer
from scaffoldlab.templates import templates
from scaffoldlab.usd.reader import VisualPart, visual_parts

REPORT = {
    "name": "name of the object",
    "source": "file that the mesh was read from",
    "digest": "digest of mesh, texture, name and settings",
    "units": "unit of the file",
    "units_evidence": "why",
    "scale": "metres that a length of 1 in the file stands for",
    "size_m": "sides of the object along the axes of its body frame [m]",
    "faces_in": "faces of the file",
    "faces_visual": "faces that cameras see",
    "watertight": "whether the mended surface is closed",
    "volume_m3": "volume of the solid [m^3]",
    "volume_error": "(volume of the colliders - volume of the solid) / volume of the solid",
    "concavity_kept": "share of the object's hollows that the colliders leave free; 1 for a convex object",
    "mass_kg": "mass [kg]",
    "inertia_kg_m2": "principal moments of inertia about the centre of mass [kg m^2]",
    "collider": "hulls, box, cylinder or sphere",
    "hulls": "number of convex colliders",
    "settle_ovphysx": "how it came to rest in PhysX; null if it was not dropped there",
    "settle_newton": "the same in MuJoCo-Warp",
    "findings": "what was checked: check, severity, seen, fix, fixed_by",
    "seconds": "time that the scan took [s]",
}
"""Keys of report.json."""
PALETTE = ((86, 180, 233), (230, 159, 0), (0, 158, 115), (204, 121, 167), (213, 94, 0), (0, 114, 178), (240, 228, 66))
"""Colours that stay apart for colour-blind readers (Okabe and Ito, 2008)."""


def report_values(made: ObjectScan, *, digest: str, seconds: float) -> dict[str, Any]:
    """What report.json says; its keys are :data:`REPORT`."""
    inertia, colliders = made.object.inertia, made.colliders
    settled = {engine: as_record(s) for engine, s in made.settling.items()}
    values = {
        "name": made.object.name,
        "source": str(made.scan.path),
        "digest": digest,
        "units": made.units.name,
        "units_evidence": made.units.evidence,
        "scale": made.units.scale,
        "size_m": made.solid.mesh.extents.round(5).tolist(),
        "faces_in": len(made.scan.mesh.faces),
        "faces_visual": len(made.object.visual.faces),
        "watertight": made.solid.watertight,
        "volume_m3": inertia.volume,
        "volume_error": round(colliders.volume_error, 4),
        "concavity_kept": round(colliders.concavity_kept, 4),
        "mass_kg": inertia.mass,
        "inertia_kg_m2": inertia.principal()[0].tolist(),
        "collider": colliders.kind,
        "hulls": len(colliders.parts),
        "settle_ovphysx": settled.get("ovphysx"),
        "settle_newton": settled.get("newton_mjwarp"),
        "findings": [asdict(f) for f in made.findings],
        "seconds": round(seconds, 2),
    }
    assert list(values) == list(REPORT)
    return values


def write_object_report(folder: Path, made: ObjectScan, report: dict[str, Any]) -> None:
    """Writes ``thumbnail.png``, ``index.html`` and ``report.json`` beside the object's files."""
    look = visual_parts(folder / f"{made.object.name}.usda")
    thumbnail = _picture(made, look)
    thumbnail.save(folder / "thumbnail.png")
    colliders = tuple(
        VisualPart(p.mesh.vertices, p.mesh.faces, None, (np.array(PALETTE[n % len(PALETTE)]) / 255) ** 2.2, None)
        for n, p in enumerate(made.colliders.parts)
    )
    page = templates("scaffoldlab.scan").get_template("objects/report.html.j2").render(
        report=report, object=made.object, findings=made.findings, turning=_turntable(made, look),
        colliders=_data_uri(_picture(made, colliders)), marked=_data_uri(_marked(made, look)),
    )  # fmt: skip
    write_atomic(folder / "index.html", page)
    write_atomic(folder / "report.json", json.dumps(report, indent=2) + "\n")


def _camera(made: ObjectScan, turn: float = 0.0, *, size: int = 480) -> Camera:
    """Looks at the object from its front left, from somewhat above."""
    away = 1.9 * float(np.linalg.norm(made.solid.mesh.extents))
    slope, yaw = np.radians(28), np.radians(-125) + turn
    eye = away * np.array([np.cos(yaw) * np.cos(slope), np.sin(yaw) * np.cos(slope), np.sin(slope)])
    middle = made.solid.mesh.bounds.mean(0)
    return Camera.look_at(middle + eye, middle, width=size, height=size, fov_deg=34)


def _picture(made: ObjectScan, parts: tuple[VisualPart, ...], *, turn: float = 0.0, size: int = 480) -> Image.Image:
    renderer = Renderer({"it": parts}, {"it": np.eye(4)})
    return Image.fromarray(renderer.render(_camera(made, turn, size=size), smooth=2).rgb)


def _turntable(made: ObjectScan, parts: tuple[VisualPart, ...]) -> str:
    pictures = [_picture(made, parts, turn=2 * np.pi * n / 24, size=320) for n in range(24)]
    stream = io.BytesIO()
    pictures[0].save(stream, "webp", save_all=True, append_images=pictures[1:], duration=110, loop=0, quality=80)
    return f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _marked(made: ObjectScan, parts: tuple[VisualPart, ...]) -> Image.Image:
    """The picture with the keypoint candidates on it; those behind the object are hollow."""
    from PIL import ImageDraw

    size = 960
    picture, camera = _picture(made, parts, size=size), _camera(made, size=size)
    renderer, draw = Renderer({"it": parts}, {"it": np.eye(4)}), ImageDraw.Draw(picture)
    depth = renderer.render(camera).depth
    for (name, point), (u, v) in zip(
        made.object.keypoints.items(), camera.project(np.array(list(made.object.keypoints.values()))), strict=True
    ):
        away = float((point - camera.pose_ec[:3, 3]) @ camera.pose_ec[:3, 2])
        row, column = (int(np.clip(c, 0, size - 1)) for c in (v, u))
        hidden = 0 < depth[row, column] < away - 0.004
        draw.ellipse(
            (u - 8, v - 8, u + 8, v + 8), fill=None if hidden else (213, 94, 0), outline=(255, 255, 255), width=3
        )
        draw.text((u + 12, v - 12), name, fill=(20, 24, 29), font_size=24, stroke_width=3, stroke_fill=(255, 255, 255))
    return picture


def _data_uri(image: Image.Image) -> str:
    stream = io.BytesIO()
    image.save(stream, "webp", quality=85)
    return f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}"
