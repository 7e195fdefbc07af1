"""What a scan of a scene has to say about itself: one finding a line, for the console, report.json and the page."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from scaffoldlab.scan.findings import Finding
from scaffoldlab.scan.scenes.placement import Placement
from scaffoldlab.scan.scenes.standing import FLOAT_OK

if TYPE_CHECKING:
    from scaffoldlab.scan.captures.capture import Capture
    from scaffoldlab.scan.scenes.scene import ScannedScene

CONTOUR_OK = 2.0
"""Reprojection error that is good enough [px] at 640 pixels of width."""
RESIDUAL_OK = 0.004
"""Distance of the table's points from their plane that is good enough [m]."""
SPREAD_OK, SPREAD_DEG_OK = 0.008, 4.0
"""Scatter of an object's poses that is good enough [m], [deg]."""
SETTLE_OK, TILT_OK = 0.01, 5.0
"""How far an object may move when it is let fall [m], and turn [deg]."""


def scene_findings(capture: "Capture", scene: "ScannedScene", *, fused: int, kept: bool) -> list[Finding]:
    """Everything worth saying about a scanned scene.

    Args:
        capture: Where it came from.
        scene: What was found.
        fused: Frames that the background was fused from; 0 if it came as a point cloud.
        kept: Whether the background was made before and kept.
    """
    findings = [_frames(capture, scene, fused, kept), _table(scene), _solids(scene)]
    for placement in scene.placements:
        findings += [_poses(placement), _rest(placement)]
        findings.append(_overlay(scene, placement.name))
    return findings


def settle_findings(settled: Mapping[str, tuple[float, float]]) -> list[Finding]:
    """What is to be said about objects that were let fall: displacement [m] and tilt [deg] of each."""
    return [_settled(name, *moved) for name, moved in settled.items()]


def _finding(check: str, trouble: str, seen: str, fix: str) -> Finding:
    """Ok without trouble, else a warning."""
    said = f"{seen}; {trouble}" if trouble else seen
    return Finding(check=check, severity="warning" if trouble else "ok", seen=said, fix=fix if trouble else "")


def _frames(capture: "Capture", scene: "ScannedScene", fused: int, kept: bool) -> Finding:
    total = len(capture.frames)
    if not capture.posed and total > 1:
        trouble = "there are no camera poses, so only the first frame was used"
    else:
        trouble = "from one side only, what is hidden is missing" if len(scene.frames) == 1 else ""
    seen = f"{total} frames, the background from {fused} of them" if fused else f"{total} frames and a point cloud"
    seen += ", kept from the last run" if kept else ""
    return _finding("frames", trouble, seen, "Capture from several sides, with camera poses")


def _table(scene: "ScannedScene") -> Finding:
    table = scene.table
    seen = f"{100 * table.size[0]:.0f} x {100 * table.size[1]:.0f} cm, flat to {1000 * table.residual:.1f} mm"
    seen += f", {table.tilt_deg:.1f} deg from level" if table.tilt_deg else ""
    trouble = "that is not flat" if table.residual > RESIDUAL_OK else ""
    trouble = trouble or ("that is not level" if table.tilt_deg > 2 else "")
    return _finding("table", trouble, seen, "Check the camera poses, the depth scale and --up")


def _solids(scene: "ScannedScene") -> Finding:
    kinds = [solid.kind for solid in scene.solids.solids]
    counts = {kind: kinds.count(kind) for kind in ("board", "wall", "block") if kind in kinds}
    parts = [f"{count} {kind}{'s' if count > 1 else ''}" for kind, count in counts.items()]
    dropped = scene.solids.dropped
    small = f", {dropped} small cluster{'s' if dropped > 1 else ''} of points dropped" if dropped else ""
    return Finding(check="surroundings", severity="ok", seen=(" and ".join(parts) or "nothing else") + small)


def _poses(placement: Placement) -> Finding:
    seen = f"{placement.tracker}, {placement.looks} used, {placement.dropped} dropped"
    if placement.looks > 1:
        seen += f", scatter {1000 * placement.spread:.1f} mm and {placement.spread_deg:.1f} deg"
    wide = placement.spread > SPREAD_OK or placement.spread_deg > SPREAD_DEG_OK
    trouble = "the poses do not agree" if wide else ""
    trouble = trouble or ("more dropped than used" if placement.dropped > placement.looks else "")
    return _finding(f"{placement.name}: pose", trouble, seen, "Track it again, or check the camera poses")


def _rest(placement: Placement) -> Finding:
    if placement.gap > FLOAT_OK:
        seen, trouble = f"{1000 * placement.gap:.1f} mm above what is below it", "it hovers"
    else:
        way = "lifted" if placement.lifted >= 0 else "lowered"
        seen = f"{way} by {1000 * abs(placement.lifted):.1f} mm and turned by {placement.turned_deg:.1f} deg to stand"
        trouble = "it was deep inside" if placement.lifted > FLOAT_OK else ""
    return _finding(f"{placement.name}: rest", trouble, seen, "Check the pose, the mesh's scale and the table")


def _overlay(scene: "ScannedScene", name: str) -> Finding:
    error = scene.reprojection.get(name)
    if error is None:
        return _finding(f"{name}: overlay", "not measured", "no masks", "Add masks to measure the overlay")
    seen = f"outlines {error.contour_px:.1f} px apart, middles {error.centroid_px:.1f} px"
    seen += f", {100 * error.overlap:.0f} % overlap, in {error.frames} frame{'s' if error.frames > 1 else ''}"
    allowed = CONTOUR_OK * max(1.0, scene.reference.camera.width / 640)
    trouble = f"more than {allowed:.1f} px" if max(error.contour_px, error.centroid_px) > allowed else ""
    return _finding(f"{name}: overlay", trouble, seen, "Look at the overlay: check masks, mesh scale and poses")


def _settled(name: str, distance: float, tilt_deg: float) -> Finding:
    trouble = "it does not stay where it was" if distance > SETTLE_OK or tilt_deg > TILT_OK else ""
    seen = f"moved {1000 * distance:.1f} mm and turned {tilt_deg:.1f} deg in 2 s of simulation"
    return _finding(f"{name}: settled", trouble, seen, "Look at its colliders, and at what it stands on")
