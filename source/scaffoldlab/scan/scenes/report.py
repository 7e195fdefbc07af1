"""Writes the report of a scanned scene: report.json, and one page with pictures, overlays and checks."""

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

from scaffoldlab.camera import Camera
from scaffoldlab.files import write_atomic
from scaffoldlab.scan.captures.overlap import spread
from scaffoldlab.scan.render import Renderer, renderer_of
from scaffoldlab.scan.scenes.files import BACKGROUND
from scaffoldlab.scan.scenes.overlay import draw_overlay, turntable
from scaffoldlab.specs.models import SceneSpec
from scaffoldlab.templates import templates

if TYPE_CHECKING:
    from scaffoldlab.scan.captures.frame import Frame
    from scaffoldlab.scan.scenes.scene import ScannedScene

PICTURES = 4
"""Frames shown beside their simulated pictures."""
TURN_PICTURES, TURN_WIDTH, TURN_MS = 30, 480, 120
"""Pictures of the turntable, their width [px], and how long each is shown [ms]."""
TURN_FOV_DEG, TURN_SLOPE = 40.0, np.radians(38)
"""Field of view of its camera [deg], and how steeply it looks down [rad]."""


def write_scene_report(folder: Path, scene: "ScannedScene", spec: SceneSpec, *, name: str, background: Path) -> None:
    """Writes ``index.html``, which loads nothing, and ``report.json``.

    Args:
        folder: Where to write.
        scene: What was found.
        spec: The scene as it is written.
        name: Name of the scene.
        background: USD file of the background, already written.
    """
    poses = {BACKGROUND: np.eye(4)} | {p.name: p.pose for p in scene.placements}
    renderer, up = renderer_of({BACKGROUND: background, **scene.files}, poses), scene.table.rotation_eb[:, 2]
    write_atomic(folder / "report.json", json.dumps(report_values(scene, spec, name), indent=2) + "\n")
    reference = [f for f in spread(scene.frames, PICTURES) if f.name != scene.reference.name]
    pictures = [_comparison(scene, renderer, frame) for frame in [scene.reference, *reference][:PICTURES]]
    turning = turntable(renderer, _around(scene), scene.table.center_e, up, pictures=TURN_PICTURES)
    page = _page(scene, spec, name, pictures, _gif(turning))
    write_atomic(folder / "index.html", page)


def report_values(scene: "ScannedScene", spec: SceneSpec, name: str) -> dict[str, Any]:
    """What report.json says: every number of the scan, as JSON values; lengths in metres."""
    objects = {}
    for p in scene.placements:
        error, settled = scene.reprojection.get(p.name), scene.settled.get(p.name)
        objects[p.name] = {
            "usd": scene.objects[p.name].usd,
            "position": p.pose[:3, 3].round(5).tolist(),
            "quat_xyzw": Rotation.from_matrix(p.pose[:3, :3]).as_quat().round(6).tolist(),
            "tracker": p.tracker,
            "poses_used": p.looks,
            "poses_dropped": p.dropped,
            "scatter": round(p.spread, 5),
            "scatter_deg": round(p.spread_deg, 3),
            "lifted": round(p.lifted, 5),
            "turned_deg": round(p.turned_deg, 3),
            "gap": round(p.gap, 5),
            "reprojection": {k: round(v, 3) for k, v in asdict(error).items()} if error else None,
            "settled": {"displacement": round(settled[0], 5), "tilt_deg": round(settled[1], 2)} if settled else None,
        }
    return {
        "scene": name,
        "frames": len(scene.frames),
        "reference_frame": scene.reference.name,
        "capture_to_env": scene.table.pose_ew.round(6).tolist(),
        "table": {
            "height": round(scene.table.height, 5),
            "size": scene.table.size.round(4).tolist(),
            "residual": round(scene.table.residual, 5),
            "tilt_deg": round(scene.table.tilt_deg, 3),
        },
        "solids": [
            {"kind": s.kind, "low": s.corners_e.min(0).round(4).tolist(), "high": s.corners_e.max(0).round(4).tolist()}
            for s in scene.solids.solids
        ],
        "clusters_dropped": scene.solids.dropped,
        "objects": objects,
        "keypoints": len(spec.keypoints),
        "workspace": [list(corner) for corner in spec.workspace],
        "findings": [asdict(finding) for finding in scene.findings],
    }


def _around(scene: "ScannedScene") -> Camera:
    """A camera that has the whole table in view from wherever it stands around it."""
    table = scene.table
    away = 1.1 * float(np.linalg.norm(table.size)) / 2 / np.tan(np.radians(TURN_FOV_DEG) / 2)
    eye = table.center_e + table.rotation_eb @ np.array((-np.cos(TURN_SLOPE), 0, np.sin(TURN_SLOPE))) * away
    size = TURN_WIDTH, 3 * TURN_WIDTH // 4
    return Camera.look_at(eye, table.center_e, width=size[0], height=size[1], fov_deg=TURN_FOV_DEG)


def _comparison(scene: "ScannedScene", renderer: Renderer, frame: "Frame") -> dict[str, str]:
    """A frame, its simulated picture and their overlay, as data URIs."""
    rgb, render = frame.image().rgb, renderer.render(scene.camera_e(frame), smooth=2)
    overlay = draw_overlay(rgb, render, renderer.names, [p.name for p in scene.placements])
    return {"name": frame.name, "real": _webp(rgb), "simulated": _webp(render.rgb), "overlay": _webp(overlay)}


def _page(scene: "ScannedScene", spec: SceneSpec, name: str, pictures: Sequence[dict[str, str]], turning: str) -> str:
    """The page, filled into report.html.j2."""
    general = [f for f in scene.findings if ": " not in f.check]
    rows = [(p, [f for f in scene.findings if f.check.startswith(f"{p.name}: ")]) for p in scene.placements]
    return (
        templates("scaffoldlab.scan")
        .get_template("scenes/report.html.j2")
        .render(
            name=name,
            spec=spec,
            scene=scene,
            general=general,
            rows=rows,
            warnings=sum(f.severity != "ok" for f in scene.findings),
            pictures=pictures,
            turning=turning,
            angles={
                p.name: Rotation.from_matrix(p.pose[:3, :3]).as_euler("xyz", degrees=True) for p in scene.placements
            },
        )
    )


def _webp(picture: np.ndarray) -> str:
    buffer = io.BytesIO()
    image = Image.fromarray(picture)
    image.thumbnail((960, 960))
    image.save(buffer, "webp", quality=85)
    return _data_uri("image/webp", buffer)


def _gif(pictures: Sequence[np.ndarray]) -> str:
    """An endless animation with one palette for all pictures, or colours flicker."""
    buffer = io.BytesIO()
    sheet = Image.fromarray(np.concatenate(pictures[:: max(1, len(pictures) // 6)]))
    palette = sheet.quantize(256, method=Image.Quantize.MEDIANCUT, kmeans=3)  # small things keep their colours
    frames = [Image.fromarray(p).quantize(palette=palette, dither=Image.Dither.NONE) for p in pictures]
    frames[0].save(buffer, "gif", save_all=True, append_images=frames[1:], duration=TURN_MS, loop=0, optimize=False)
    return _data_uri("image/gif", buffer)


def _data_uri(kind: str, buffer: io.BytesIO) -> str:
    return f"data:{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
