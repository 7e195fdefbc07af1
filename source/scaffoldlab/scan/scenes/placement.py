"""Where the objects of a capture are: poses of a tracker over many frames, averaged, checked, and set down."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
import trimesh
from scipy.spatial.transform import Rotation

from scaffoldlab.scan.o3d import open3d
from scaffoldlab.usd.reader import visual_parts

if TYPE_CHECKING:
    from scaffoldlab.scan.captures.capture import Frame

POSITION_OUTLIER = 0.02
"""Poses further than this from the median position are left out [m]."""
ANGLE_OUTLIER = 10.0
"""Poses turned further than this from the middle one are left out [deg]."""


class PoseTracker(Protocol):
    """Who knows where an object is (IKER, section III-D)."""

    name: str

    def poses_w(self, name: str) -> list[np.ndarray]:
        """Poses of an object in the capture's world, one a look, shape (4, 4) each; none if it was not found."""
        ...


class FoundationPoseFolder:
    """Poses that a tracker has left in the capture: camera pose x ``ob_in_cam``.

    Args:
        frames: Frames with their object poses; failed ones are already left out.
    """

    name = "recorded poses"

    def __init__(self, frames: Sequence["Frame"]):
        self._frames = frames

    def poses_w(self, name: str) -> list[np.ndarray]:
        """See :class:`PoseTracker`."""
        found = ((frame, frame.object_poses.get(name)) for frame in self._frames)
        return [frame.camera.pose_ec @ pose_co for frame, pose_co in found if pose_co is not None]


class IcpTracker:
    """A stand-in for a tracker: fits the object's mesh to the depth inside its masks, from several first guesses.

    It needs the way up and an object that stands as its file has it; an object of revolution comes out at any turn.

    Args:
        frames: Frames with masks.
        files: USD file of each object.
        up: Direction against gravity in the capture's world, shape (3,).
    """

    name = "ICP stand-in"

    def __init__(self, frames: Sequence["Frame"], files: Mapping[str, Path], up: np.ndarray):
        self._frames, self._files, self._up = frames, files, up

    def poses_w(self, name: str) -> list[np.ndarray]:
        """See :class:`PoseTracker`; one pose for all frames together."""
        o3d = open3d()
        seen = [points for frame in self._frames if len(points := masked_points(frame, name))]
        if not seen or sum(map(len, seen)) < 50:
            return []
        cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(np.concatenate(seen))).voxel_down_sample(0.004)
        cloud, _ = cloud.remove_statistical_outlier(20, 2.0)
        mesh = mesh_of(self._files[name])
        model = o3d.geometry.PointCloud(
            o3d.utility.Vector3dVector(trimesh.sample.sample_surface(mesh, 4000, seed=0)[0])
        )
        model.estimate_normals(o3d.geometry.KDTreeSearchParamHybrid(radius=0.01, max_nn=20))
        points, upright = np.asarray(cloud.points), Rotation.align_vectors([self._up], [[0, 0, 1]])[0]
        best = (np.inf, np.eye(4))
        for turn in np.arange(0, 360, 30):
            guess = np.eye(4)
            guess[:3, :3] = (upright * Rotation.from_euler("z", turn, degrees=True)).as_matrix()
            guess[:3, 3] = _middle(points, guess[:3, :3]) - guess[:3, :3] @ mesh.bounds.mean(0)
            best = min(best, _icp(cloud, model, guess), key=lambda found: found[0])
        return [best[1]]


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where an object is.

    Attributes:
        name: Name of the object.
        pose: Object to the capture's world, or to the env frame once it is set down, shape (4, 4).
        tracker: Who found it.
        looks: Poses that it was averaged over.
        dropped: Poses that were left out.
        spread: Root mean square distance of the poses from their mean [m].
        spread_deg: Root mean square angle of the poses to their mean [deg].
        lifted: How far it was lifted to stand on something [m]; negative if it was lowered.
        turned_deg: By how much it was turned to stand flat [deg].
        gap: How high it is above what is below it [m].
    """

    name: str
    pose: np.ndarray
    tracker: str
    looks: int
    dropped: int
    spread: float
    spread_deg: float
    lifted: float = 0.0
    turned_deg: float = 0.0
    gap: float = 0.0


def place(name: str, tracker: PoseTracker) -> Placement | None:
    """The mean pose of an object in the capture's world, outliers left out; None if the tracker never saw it.

    The position is a median before outliers are left out and a mean after; the orientation likewise is the pose
    nearest to all others, then the mean rotation (the eigenvector of the summed quaternions).
    """
    poses = np.array([pose for pose in tracker.poses_w(name) if np.isfinite(pose).all()])
    if not len(poses):
        return None
    positions, rotations = poses[:, :3, 3], Rotation.from_matrix(poses[:, :3, :3])
    sample = rotations[np.linspace(0, len(poses) - 1, min(len(poses), 100)).astype(int)]
    angles = np.array([(rotations * other.inv()).magnitude() for other in sample])
    middle = np.degrees(angles[np.median(angles, axis=1).argmin()])
    away = np.linalg.norm(positions - np.median(positions, axis=0), axis=-1)
    good = (away < POSITION_OUTLIER) & (middle < ANGLE_OUTLIER)
    if not good.any():
        good[np.argmin(away + middle / 1000)] = True
    pose = np.eye(4)
    mean = rotations[good].mean()
    pose[:3, :3], pose[:3, 3] = mean.as_matrix(), positions[good].mean(0)
    return Placement(
        name=name,
        pose=pose,
        tracker=tracker.name,
        looks=int(good.sum()),
        dropped=int((~good).sum()),
        spread=float(np.sqrt(np.mean(np.sum((positions[good] - pose[:3, 3]) ** 2, -1)))),
        spread_deg=float(np.degrees(np.sqrt(np.mean((rotations[good] * mean.inv()).magnitude() ** 2)))),
    )


def mesh_of(path: Path) -> trimesh.Trimesh:
    """What cameras see of an asset, as one mesh in its frame."""
    parts = [trimesh.Trimesh(part.vertices, part.faces, process=False) for part in visual_parts(path)]
    return cast(trimesh.Trimesh, trimesh.util.concatenate(parts))


def seen_mask(frame: "Frame", name: str) -> np.ndarray | None:
    """Where a frame shows an object, shape (height, width), bool; None if it has no mask of it, or an empty one."""
    mask = frame.mask(name) if name in frame.masks else None
    return mask if mask is not None and mask.any() else None


def masked_points(frame: "Frame", name: str) -> np.ndarray:
    """What a frame shows of an object, by its mask without the rim, in the capture's world [m], shape (P, 3)."""
    from scipy.ndimage import binary_erosion

    mask = seen_mask(frame, name)
    if mask is None:
        return np.empty((0, 3))
    image = frame.image()
    inner = np.asarray(binary_erosion(mask, iterations=2 if mask.sum() > 400 else 1), bool) & (image.depth > 0)
    rows, columns = np.nonzero(inner)
    if not len(rows):
        return np.empty((0, 3))
    return image.lift(np.column_stack((columns, rows)) + 0.5)


def _middle(points: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """Middle of the box around points, the box turned by a rotation, shapes (P, 3) and (3, 3) -> (3,)."""
    local = points @ rotation
    return rotation @ (np.percentile(local, 1, axis=0) + np.percentile(local, 99, axis=0)) / 2


def _icp(cloud, model, guess: np.ndarray) -> tuple[float, np.ndarray]:
    """Error of a fit [m] and the pose, object to world: the seen points are moved onto the model, coarse to fine."""
    icp = open3d().pipelines.registration
    inverse = np.linalg.inv(guess)
    for distance in (0.04, 0.015, 0.006):
        criteria = icp.ICPConvergenceCriteria(max_iteration=40)
        estimate = icp.TransformationEstimationPointToPlane()
        inverse = icp.registration_icp(cloud, model, distance, inverse, estimate, criteria).transformation
    fit = icp.evaluate_registration(cloud, model, 0.01, inverse)
    return float(fit.inlier_rmse + 0.01 * (1 - fit.fitness)), np.linalg.inv(inverse)
