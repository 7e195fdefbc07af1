"""Examines the cameras' poses of a capture: jumps, agreement between pictures, gravity."""

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from scaffoldlab.camera import Camera
from scaffoldlab.scan.captures.capture import Capture
from scaffoldlab.scan.captures.frame import Frame
from scaffoldlab.scan.captures.object_poses import step
from scaffoldlab.scan.captures.overlap import lift_grid, overlap_agreement
from scaffoldlab.scan.findings import Finding, some_of

STEP_LIMITS = (0.02, 5.0), (np.inf, 120.0)
"""Between these is how far a camera may be from its neighbours at the world's origin [m], [deg]. A camera that looks
down by 30 deg is 120 deg from the identity of a world whose z is up."""


def lost_frames(capture: Capture) -> list[str]:
    """Names of the frames whose camera has fallen back to the world's origin, as odometry does when it is lost.

    The identity is a camera's true pose where the world is that of one of its pictures, often the first: then it is
    at most two usual steps from the camera's pose before or after, or four at the start, which has but the latter.
    """
    lost = []
    for frames in _devices(capture):
        at_origin = [np.array_equal(frame.camera.pose_ec, np.eye(4)) for frame in frames]
        known = [index for index, origin in enumerate(at_origin) if not origin]
        steps = _steps([frames[index] for index in known])
        if not len(steps):
            continue
        usual = np.median(steps, axis=0)
        for index in np.flatnonzero(at_origin):
            after = int(np.searchsorted(known, index))
            limits = np.clip((2 if after else 4) * usual, *STEP_LIMITS)
            around = [frames[i].camera.pose_ec for i in known[max(0, after - 1) : after + 1]]
            if not any((step(np.eye(4), pose) <= limits).all() for pose in around):
                lost.append(frames[index].name)
    return lost


def examine_camera_poses(capture: Capture, lost: Sequence[str] = ()) -> list[Finding]:
    """Whether a moving camera jumps; the frames in which it is lost are left out."""
    wrong, seen = [], "they stand still"
    for device in _devices(capture):
        frames = [frame for frame in device if frame.name not in lost]
        steps = _steps(frames)
        if not len(steps) or not steps.any():
            continue
        jump, turn = np.median(steps, axis=0)
        seen = f"the camera moves by {100 * jump:.1f} cm and {turn:.1f} deg per frame (median)"
        odd = (steps[:, 0] > max(0.3, 5 * jump)) | (steps[:, 1] > max(60, 5 * turn))
        wrong += [
            f"{frames[i + 1].name} ({100 * steps[i, 0]:.0f} cm, {steps[i, 1]:.0f} deg)" for i in np.flatnonzero(odd)
        ]
    check, again, findings = "camera poses", "estimate the cameras' poses again", []
    if wrong:
        jumps, fix = f"{seen}, but jumps at {some_of(wrong)}", f"Delete these frames, or {again}"
        findings.append(Finding(check=check, severity="warning", seen=jumps, fix=fix))
    if lost:
        fallen = f"{len(lost)} of {len(capture.frames)} have fallen back to the identity: {some_of(lost)}"
        fix = f"These are left out; {again} if too few remain"
        findings.append(Finding(check=check, severity="warning", seen=fallen, fix=fix, fixed_by=True))
    return findings or [Finding(check=check, severity="ok", seen=f"rigid and finite; {seen}")]


def examine_views(capture: Capture, pictures: Sequence[tuple[np.ndarray, Camera]]) -> list[Finding]:
    """Whether the pictures agree about the surfaces; if not, whether they would with another reading of the files.

    Args:
        capture: What the pictures are from.
        pictures: Depth [m], shape (height, width), and camera.
    """
    share, confirmed = overlap_agreement(pictures)
    flip = np.diag((1.0, -1, -1, 1))
    readings = [
        (
            "poses of world to camera",
            "Write the inverse matrices to cam_in_world",
            [(depth, replace(camera, pose_ec=np.linalg.inv(camera.pose_ec))) for depth, camera in pictures],
        ),
        (
            "OpenGL's camera axes",
            "Negate the second and the third column of the matrices in cam_in_world",
            [(depth, replace(camera, pose_ec=camera.pose_ec @ flip)) for depth, camera in pictures],
        ),
    ]
    for factor in (1000, 10, 5, 2, 1 / 2, 1 / 5, 1 / 10, 1 / 1000):
        unit = f"{factor * capture.depth_unit:g} m"
        scaled = [(factor * depth, camera) for depth, camera in pictures]
        readings.append((f"a depth unit of {unit}", f"Give {unit} as the depth unit", scaled))
    others = [overlap_agreement(changed)[1] for _, _, changed in readings]
    best = int(np.argmax(others))
    if others[best] >= max(0.2, 1.5 * confirmed):
        reading, fix, _ = readings[best]
        seen = f"{100 * confirmed:.0f} % of the points are confirmed by another picture, but {100 * others[best]:.0f} %"
        return [Finding(check="views", severity="error", seen=f"{seen} with {reading}", fix=fix)]
    if np.isnan(share):
        return []
    seen = f"{100 * share:.0f} % of what one picture shows is where others see it"
    if share >= 0.5:
        return [Finding(check="views", severity="ok", seen=seen)]
    fix = "Estimate the cameras' poses again, and align the depth to the colour image"
    return [Finding(check="views", severity="warning", seen=seen, fix=fix)]


def examine_gravity(pictures: Sequence[tuple[np.ndarray, Camera]], max_tilt_deg: float) -> list[Finding]:
    """Which way the largest plane faces: a table or a floor, if z is against gravity.

    Args:
        pictures: Depth [m], shape (height, width), and camera.
        max_tilt_deg: Largest angle between its normal and +z that is accepted [deg].
    """
    from scaffoldlab.scan.o3d import open3d

    o3d = open3d()
    points = np.concatenate([lift_grid(depth, camera, 5000) for depth, camera in pictures])
    if len(points) < 100:
        return []
    o3d.utility.random.seed(0)
    cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(points))
    _, inliers = cloud.segment_plane(distance_threshold=0.01, ransac_n=3, num_iterations=300)
    inside = points[inliers]
    normal = np.linalg.svd(inside - inside.mean(0), full_matrices=False)[2][-1]
    eyes = np.mean([camera.pose_ec[:3, 3] for _, camera in pictures], axis=0)
    normal = normal * np.sign(normal @ (eyes - inside.mean(0)) or 1.0)
    tilt = float(np.degrees(np.arccos(np.clip(normal[2], -1, 1))))
    seen = f"the largest plane, {100 * len(inliers) / len(points):.0f} % of the points, leans {tilt:.1f} deg from +z"
    if tilt <= max_tilt_deg:
        return [Finding(check="gravity", severity="ok", seen=seen)]
    kind = " (a wall, or z is not up)" if 80 < tilt < 100 else " (z points down)" if tilt > 170 else ""
    fix = "Turn the world so that z points up, or level it by its table"
    return [Finding(check="gravity", severity="warning", seen=seen + kind, fix=fix)]


def _devices(capture: Capture) -> list[list[Frame]]:
    """The frames of each camera."""
    devices: dict[str, list[Frame]] = {}
    for frame in capture.frames:
        devices.setdefault(frame.name.rpartition("/")[0], []).append(frame)
    return list(devices.values())


def _steps(frames: Sequence[Frame]) -> np.ndarray:
    """Distance [m] and turn [deg] from each frame's camera to the next one's, shape (F - 1, 2)."""
    return np.array([step(a.camera.pose_ec, b.camera.pose_ec) for a, b in itertools.pairwise(frames)])
