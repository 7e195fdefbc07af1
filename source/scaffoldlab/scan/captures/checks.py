"""Examines a capture before anything is made from it: images, intrinsics, depth, masks, poses, gravity."""

import os
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from scaffoldlab.errors import ScaffoldError
from scaffoldlab.scan.archives import AnyPath
from scaffoldlab.scan.captures.capture import Capture, read_capture
from scaffoldlab.scan.captures.depth_unit import UNITS
from scaffoldlab.scan.captures.frame import Frame
from scaffoldlab.scan.captures.object_poses import PoseLimits, judge_poses
from scaffoldlab.scan.captures.overlap import spread
from scaffoldlab.scan.captures.view_checks import examine_camera_poses, examine_gravity, examine_views, lost_frames
from scaffoldlab.scan.findings import Finding, some_of

LIMITS = PoseLimits()
PICTURES = 6
"""Pictures that are compared with each other and in which the largest plane is looked for."""

ENDS = {".png": b"IEND", ".jpg": b"\xff\xd9", ".jpeg": b"\xff\xd9", ".depth": b"bvx$", ".conf": b"bvx$"}
"""What is near the end of a file that is whole."""

FULL = 0.95
"""Share of the picture from which on a mask is one of everything."""


def usable_poses(capture: Capture, object_name: str, *, limits: PoseLimits = LIMITS) -> dict[str, np.ndarray]:
    """Object to camera frame by the name of the frame, shape (4, 4), without those where tracking has failed.

    Raises:
        ScaffoldError: The object was not tracked.
    """
    poses = {f.name: f.object_poses[object_name] for f in capture.frames if object_name in f.object_poses}
    if not poses:
        tracked = ", ".join(sorted({name for f in capture.frames for name in f.object_poses})) or "none was tracked"
        raise ScaffoldError(
            f"{capture.folder}: no poses of {object_name!r}; allowed: {tracked}. Write its poses to "
            f"ob_in_cam/{object_name}/."
        )
    reasons = judge_poses(capture, object_name, limits)
    return {name: pose for name, pose in poses.items() if not reasons[name]}


def examine_capture(
    capture: Capture | str | os.PathLike[str],
    *,
    depth_unit: float | None = None,
    sample: int = 20,
    limits: PoseLimits = LIMITS,
    max_tilt_deg: float = 2.0,
    without: Collection[str] = (),
) -> list[Finding]:
    """What is right and wrong with a capture.

    Args:
        capture: The capture or its folder; one that cannot be read is a finding too.
        depth_unit: As for :func:`scaffoldlab.scan.captures.capture.read_capture`, where a folder is given.
        sample: Number of frames whose pixels are looked at, evenly spaced. All files are checked for being whole.
        limits: Of the object poses.
        max_tilt_deg: Largest angle between the largest plane's normal and +z [deg].
        without: Objects that are not needed, so that nothing is said of their masks and poses.
    """
    if not isinstance(capture, Capture):
        try:
            capture = read_capture(capture, depth_unit=depth_unit)
        except ScaffoldError as error:
            seen = str(error).rstrip(".")
            return [Finding(check="capture", severity="error", seen=seen, fix="Correct this and look again")]
    findings, looks = _examine_images(capture, spread(capture.frames, sample))
    findings.insert(0, _examine_count(capture))
    findings.append(_examine_intrinsics(capture))
    if looks:
        findings += _examine_depth(capture, looks)
    lost = lost_frames(capture) if capture.posed else []
    known = replace(capture, frames=[f for f in capture.frames if f.name not in lost])
    for name in capture.object_names:
        if name not in without:
            findings += _examine_object(known, name, looks, limits)
    placed = [x for x in looks if x.frame.name not in lost]
    if capture.posed and placed:
        pictures = [(x.depth, x.frame.camera) for x in spread(placed, PICTURES)]
        views = examine_views(capture, pictures)
        findings += [*examine_camera_poses(capture, lost), *views]
        if not any(f.severity == "error" for f in views):  # else the world is none
            findings += examine_gravity(pictures, max_tilt_deg)
    return findings


@dataclass
class _Look:
    """What was seen of one frame: depth [m], shape (height, width), and the share of each object's mask."""

    frame: Frame
    depth: np.ndarray
    masks: dict[str, float]


def _examine_count(capture: Capture) -> Finding:
    count = len(capture.frames)
    seen = f"{capture.layout}, {count} frame{'s' * (count > 1)}, {'posed' if capture.posed else 'without camera poses'}"
    if count > 1:
        return Finding(check="frames", severity="ok", seen=seen)
    fix = "Take pictures from several sides; what one picture hides has to be guessed"
    return Finding(check="frames", severity="warning", seen=seen, fix=fix)


def _examine_images(capture: Capture, frames: list[Frame]) -> tuple[list[Finding], list[_Look]]:
    paths = [p for f in capture.frames for p in (f.rgb, f.depth, f.confidence, *f.masks.values()) if p is not None]
    broken = [os.path.relpath(str(path), capture.folder) for path in paths if not _is_whole(path)]
    looks = []
    for frame in frames:
        try:
            masks = {name: float(frame.mask(name).mean()) for name in frame.masks}
            looks.append(_Look(frame, frame.image().depth.astype(np.float32), masks))
        except ScaffoldError as error:
            if not any(name in str(error) for name in broken):
                broken.append(str(error).split(":", 1)[0])
    if not broken:
        seen = f"{len(paths)} files are whole, those of {len(frames)} frames were read"
        return [Finding(check="images", severity="ok", seen=seen)], looks
    return [
        Finding(
            check="images",
            severity="error",
            seen=f"{len(broken)} of {len(paths)} files are cut off or no images: {some_of(broken)}",
            fix="Copy them again, or delete their frames (colour, depth, masks and poses)",
        )
    ], looks


def _is_whole(path: AnyPath) -> bool:
    """Whether a file ends as its kind has to; a transfer that stopped leaves the header intact."""
    end = ENDS.get(path.suffix.lower())
    if end is None or not isinstance(path, Path):
        return True  # the length of .npy was compared with its header; an archive that is cut off does not open
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 1024))
        return end in file.read()


def _examine_intrinsics(capture: Capture) -> Finding:
    cameras = {(f.name.rpartition("/")[0], f.camera.intrinsics.tobytes()): f.camera for f in capture.frames}
    severity, wrong, seen = "ok", [], ""
    for camera in cameras.values():
        (fx, _, cx), (_, fy, cy) = camera.intrinsics[:2]
        seen = f"focal length {fx:.1f} x {fy:.1f}, principal point ({cx:.1f}, {cy:.1f})"
        seen += f" of {camera.width} x {camera.height}"
        if not 0.4 <= fx / camera.width <= 3 or not 0.9 <= fx / fy <= 1.1:
            severity = "error"
            wrong.append(f"{seen}: the focal length should be 0.4 to 3 widths, and alike in x and y")
        elif not (1 / 3 <= cx / camera.width <= 2 / 3 and 1 / 3 <= cy / camera.height <= 2 / 3):
            severity = "warning" if severity == "ok" else severity
            wrong.append(f"{seen}: the principal point should lie in the middle third")
    if not wrong:
        return Finding(check="intrinsics", severity="ok", seen=f"{seen} px")
    fix = "Write the K of these very images to cam_K.txt: not of another resolution, not of the depth sensor"
    return Finding(check="intrinsics", severity=severity, seen=some_of(wrong), fix=fix)


def _examine_depth(capture: Capture, looks: list[_Look]) -> list[Finding]:
    measured = np.concatenate([x.depth[x.depth > 0] for x in looks])
    zero = float(np.mean([(x.depth == 0).mean() for x in looks]))
    findings = [_examine_unit(capture, float(np.median(measured)) if len(measured) else 0.0)]
    if len(measured):
        near, far = np.percentile(measured, (5, 95))
        findings.append(Finding(check="depth range", severity="ok", seen=f"{near:.2f} to {far:.2f} m (5 to 95 %)"))
    seen = f"{100 * zero:.0f} % of the pixels have no depth"
    if zero > 0.5:
        fix = "Go closer, avoid glossy, black and clear surfaces, or switch on the camera's projector"
        severity = "error" if zero > 0.95 else "warning"
        return [*findings, Finding(check="depth coverage", severity=severity, seen=seen, fix=fix)]
    return [*findings, Finding(check="depth coverage", severity="ok", seen=seen)]


def _examine_unit(capture: Capture, median: float) -> Finding:
    seen, fix = capture.depth_evidence, ""
    if not median:
        return Finding(check="depth unit", severity="warning", seen=seen, fix="Give the depth unit")
    if not 0.15 <= median <= 6:
        raw = median / capture.depth_unit
        fits = sorted({f"{u.metres:g} ({u.name})" for units in UNITS.values() for u in units if u.fits(raw)})
        seen += f": the median depth is {median:.3g} m, where 0.15 to 6 m are usual"
        fix = (
            f"Leave the unit out, or give {' or '.join(fits)}"
            if fits
            else "Give the unit that the camera's program says"
        )
        severity = "warning" if 0.05 <= median <= 18 else "error"
        return Finding(check="depth unit", severity=severity, seen=seen, fix=fix)
    if not capture.depth_unit_is_sure:
        return Finding(check="depth unit", severity="warning", seen=seen, fix="Give the depth unit to be sure")
    return Finding(check="depth unit", severity="ok", seen=seen)


def _examine_object(capture: Capture, name: str, looks: list[_Look], limits: PoseLimits) -> list[Finding]:
    """Its masks and its poses. A scan can do without one of both, but not if masks are of everything."""
    findings = []
    if any(name in x.masks for x in looks):
        findings.append(_examine_masks(name, looks))
    if any(name in frame.object_poses for frame in capture.frames):
        findings.append(_examine_object_poses(capture, name, limits))
    failed = [f for f in findings if f.severity == "error"]
    if len(findings) < 2 or len(failed) != 1 or any(x.masks.get(name, 0) >= FULL for x in looks):
        return findings
    masks, poses = findings
    if failed == [masks]:
        return [_bearable(masks, "A scan finds it by its poses"), poses]
    return [masks, _bearable(poses, "A scan fits it to its masks")]


def _bearable(finding: Finding, instead: str) -> Finding:
    """The finding as a warning, with what a scan does instead."""
    return replace(finding, severity="warning", fix=f"{instead}; {finding.fix[0].lower()}{finding.fix[1:]}")


def _examine_masks(name: str, looks: list[_Look]) -> Finding:
    check, shares = f"masks of {name}", {x.frame.name: x.masks[name] for x in looks if name in x.masks}
    visible = [share for share in shares.values() if 0 < share < FULL]
    empty = [n for n, share in shares.items() if share == 0]
    full = [n for n, share in shares.items() if share >= FULL]
    seen = f"{len(shares)} of {len(looks)} frames have one"
    if visible:
        seen += f", it covers {100 * np.median(visible):.2g} % of the picture"
    problems = [f"{len(n)} are {how}, {some_of(n)}" for n, how in ((empty, "empty"), (full, "everything")) if n]
    if not visible:
        fix = "Segment the object again: 0 is background, all else the object"
        return Finding(check=check, severity="error", seen=f"{seen}; {'; '.join(problems)}", fix=fix)
    if problems:
        fix = "Delete the empty masks where the object is out of sight, and segment the other frames again"
        return Finding(check=check, severity="warning", seen=f"{seen}; {'; '.join(problems)}", fix=fix)
    if np.median(visible) < 0.001:
        fix = "Go closer, or make sure that the mask is of the object"
        return Finding(check=check, severity="warning", seen=seen, fix=fix)
    return Finding(check=check, severity="ok", seen=seen)


def _examine_object_poses(capture: Capture, name: str, limits: PoseLimits) -> Finding:
    check, reasons = f"poses of {name}", judge_poses(capture, name, limits)
    failed = {frame: why for frame, why in reasons.items() if why}
    seen = f"{len(reasons) - len(failed)} usable ones in {len(capture.frames)} frames"
    if len(reasons) < len(capture.frames):
        seen += f", {len(capture.frames) - len(reasons)} without any"
    if not failed:
        return Finding(check=check, severity="ok", seen=seen)
    kinds = Counter("jump" if why.startswith("jump") else why for why in failed.values())
    seen += f"; failed: {', '.join(f'{count} {kind}' for kind, count in kinds.items())}; " + some_of(
        [f"{frame} ({why})" for frame, why in failed.items()]
    )
    if len(failed) < len(reasons):
        fix = "These are left out; track again if too few remain"
        return Finding(check=check, severity="warning", seen=seen, fix=fix, fixed_by=True)
    fix = "Register the object again with a good mask, the right mesh in metres, and the K of these images"
    return Finding(check=check, severity="error", seen=seen, fix=fix)
