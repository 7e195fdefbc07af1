"""Initial states: sampling one from a task's ranges, and where its bodies are."""

import numpy as np

from scaffoldlab.geometry import pose_apply, quat_xyzw_from_rpy
from scaffoldlab.specs.models import Composition, PoseRange, Range


def sample_initial_state(composition: Composition, *, seed: int, index: int) -> dict[str, np.ndarray]:
    """Initial state number ``index`` of a seed: the same on every machine and in every order of calls.

    Args:
        composition: The task.
        seed: Seed of the library.
        index: Number of the plan.

    Returns:
        ``"hand"``: hand point [m] and roll, pitch, yaw [rad], shape (6,); per movable asset its root pose,
        xyz [m] + quat_xyzw, shape (7,), or its joint positions in the order of the scene file, shape (J,), or of an
        articulation that nothing holds first the one and then the other, shape (7 + J,). All in the env frame.
    """
    rng = np.random.default_rng((seed, index))
    spec = composition.task.initial_state
    state = {"hand": _sample_pose(rng, spec.hand)}
    for asset in composition.scene.assets:
        parts = []
        if asset.name in spec.objects:
            pose = _sample_pose(rng, spec.objects[asset.name])
            parts.append(np.concatenate([pose[:3], quat_xyzw_from_rpy(pose[3:])]))
        elif composition.is_free(asset):
            parts.append(asset.pose())
        if asset.kind == "articulation":
            ranges = spec.joints.get(asset.name, {})
            parts.append(np.array([_sample(rng, ranges.get(joint, (0.0, 0.0))) for joint in asset.joints]))
        if parts:
            state[asset.name] = np.concatenate(parts)
    return state


def body_poses(composition: Composition, state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Poses of every body of the scene in an initial state, env frame, xyz [m] + quat_xyzw, shape (7,) each.

    Bodies are named as keypoints name them: ``asset``, or ``asset/link`` of an articulation.
    """
    from scaffoldlab.usd.reader import link_poses

    poses: dict[str, np.ndarray] = {}
    for asset in composition.scene.assets:
        if asset.kind == "articulation":
            root, positions = np.split(state[asset.name], [7 if composition.is_free(asset) else 0])
            joints = dict(zip(asset.joints, positions, strict=True))
            for link, pose in link_poses(composition.usd(asset.usd), joints).items():
                poses[f"{asset.name}/{link}"] = _compose(root if len(root) else asset.pose(), pose)
        else:
            poses[asset.name] = state[asset.name] if asset.kind == "rigid" else asset.pose()
    return poses


def _sample_pose(rng: np.random.Generator, ranges: PoseRange) -> np.ndarray:
    position = [_sample(rng, r) for r in (ranges.x, ranges.y, ranges.z)]
    rpy = [np.radians(_sample(rng, r)) for r in (ranges.roll_deg, ranges.pitch_deg, ranges.yaw_deg)]
    return np.array([*position, *rpy])


def _sample(rng: np.random.Generator, ranges: Range) -> float:
    return float(rng.uniform(*ranges))


def _compose(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """Pose of ``inner`` seen from the parent of ``outer``."""
    imaginary = outer[6] * inner[3:6] + inner[6] * outer[3:6] + np.cross(outer[3:6], inner[3:6])
    real = outer[6] * inner[6] - outer[3:6] @ inner[3:6]
    return np.concatenate([pose_apply(outer, inner[:3]), imaginary, [real]])
