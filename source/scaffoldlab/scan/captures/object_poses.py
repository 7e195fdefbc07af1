"""Which of a tracker's poses are failed ones, judged by the poses around them."""

import itertools
from dataclasses import dataclass

import numpy as np

from scaffoldlab.geometry import not_rigid
from scaffoldlab.scan.captures.capture import Capture


@dataclass(frozen=True, kw_only=True)
class PoseLimits:
    """What a tracked pose may do.

    Attributes:
        max_jump: Largest step from one frame to the next [m].
        max_turn_deg: Largest turn from one frame to the next [deg].
        settle: After a jump, poses are believed if so many of them in a row continue each other.
    """

    max_jump: float = 0.05
    max_turn_deg: float = 30.0
    settle: int = 3


def judge_poses(capture: Capture, object_name: str, limits: PoseLimits) -> dict[str, str]:
    """Why each pose of an object is a failed one, or nothing, by the name of its frame.

    A pose fails if it is no rigid transform, behind the camera, exactly unturned (FoundationPose returns that when a
    registration fails; BundleSDF starts with it, so that the first one may be if the next continues it), or if it
    leaves the others. Steps are measured in the world where cameras have poses, else in the camera frame; there, and
    where pictures are few, larger ones are usual: the limits rise to three times the usual step, fourfold at most.
    """
    poses = {f.name: f.object_poses[object_name] for f in capture.frames if object_name in f.object_poses}
    reasons = {name: _alone(pose) for name, pose in poses.items()}
    poses_w = {f.name: f.camera.pose_ec @ poses[f.name] for f in capture.frames if reasons.get(f.name) == ""}
    unturned = [n for n in poses_w if np.array_equal(poses[n][:3, :3], np.eye(3))]
    turned = next((pose for n, pose in poses_w.items() if n not in unturned), None)
    for name in unturned:
        continued = turned is not None and _near(poses_w[name], turned, limits.max_jump, limits.max_turn_deg)
        if name != next(iter(poses)) or not continued:
            reasons[name] = "identity rotation"
    left = [(index, f.name) for index, f in enumerate(capture.frames) if reasons.get(f.name) == ""]
    return reasons | _strays(left, poses_w, limits)


def step(pose_a: np.ndarray, pose_b: np.ndarray) -> tuple[float, float]:
    """Distance [m] and turn [deg] between two poses, shape (4, 4)."""
    cosine = (np.trace(pose_a[:3, :3].T @ pose_b[:3, :3]) - 1) / 2
    return float(np.linalg.norm(pose_a[:3, 3] - pose_b[:3, 3])), float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


def _alone(pose: np.ndarray) -> str:
    """Why a pose is wrong whatever the others are."""
    if not np.isfinite(pose).all():
        return "not finite"
    if not_rigid(pose):
        return "not rigid"
    return "behind the camera" if pose[2, 3] <= 0 else ""


def _near(pose_a: np.ndarray, pose_b: np.ndarray, max_jump: float, max_turn_deg: float) -> bool:
    distance, turn = step(pose_a, pose_b)
    return distance <= max_jump and turn <= max_turn_deg


def _strays(poses: list[tuple[int, str]], poses_w: dict[str, np.ndarray], limits: PoseLimits) -> dict[str, str]:
    """The poses, by index and name of the frame, that neither continue the most others nor stay where they went."""
    if len(poses) < 2:
        return {}
    steps = [step(poses_w[a], poses_w[b]) for (_, a), (_, b) in itertools.pairwise(poses)]
    usual_jump, usual_turn = np.percentile(steps, 25, axis=0)  # of few steps, half may lead to a stray and back
    max_jump = np.clip(3 * usual_jump, limits.max_jump, 4 * limits.max_jump)
    max_turn = np.clip(3 * usual_turn, limits.max_turn_deg, 4 * limits.max_turn_deg)
    runs: list[list[tuple[int, str]]] = []
    for index, name in poses:
        gaps = []  # to the end of every run, 1 is as far as it may be
        for last, last_name in (run[-1] for run in runs):
            distance, turn = step(poses_w[name], poses_w[last_name])
            gaps.append(
                max(distance / max_jump, turn / max_turn) / min(index - last, 3)
            )  # it moves on while it is lost
        if gaps and min(gaps) <= 1:
            runs[int(np.argmin(gaps))].append((index, name))
        else:
            runs.append([(index, name)])
    longest = max(runs, key=len)
    run_of = {name: number for number, run in enumerate(runs) for _, name in run}
    reasons = {}
    for number, group in itertools.groupby(poses, key=lambda pose: run_of[pose[1]]):
        together = list(group)
        if runs[number] is longest or len(together) >= limits.settle:
            continue
        for index, name in together:
            _, nearest = min(longest, key=lambda other: abs(other[0] - index))
            distance, turn = step(poses_w[name], poses_w[nearest])
            reasons[name] = f"jump by {100 * distance:.0f} cm and {turn:.0f} deg"
    return reasons
