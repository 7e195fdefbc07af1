"""Rotations and rigid transforms in NumPy: quaternions x y z w, and R = Rz(yaw) Ry(pitch) Rx(roll)."""

import numpy as np


def matrix_from_rpy(rpy: np.ndarray) -> np.ndarray:
    """Rotation matrices of roll, pitch, yaw [rad], shape (..., 3) -> (..., 3, 3)."""
    roll, pitch, yaw = np.moveaxis(np.asarray(rpy, float), -1, 0)
    cr, sr, cp, sp, cy, sy = np.cos(roll), np.sin(roll), np.cos(pitch), np.sin(pitch), np.cos(yaw), np.sin(yaw)
    rows = (
        (cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr),
        (sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr),
        (-sp, cp * sr, cp * cr),
    )
    return np.stack([np.stack(row, -1) for row in rows], -2)


def quat_xyzw_from_rpy(rpy: np.ndarray) -> np.ndarray:
    """Unit quaternions x y z w of roll, pitch, yaw [rad], shape (..., 3) -> (..., 4)."""
    half = np.asarray(rpy, float) / 2
    (cr, cp, cy), (sr, sp, sy) = np.moveaxis(np.cos(half), -1, 0), np.moveaxis(np.sin(half), -1, 0)
    return np.stack(
        (
            sr * cp * cy - cr * sp * sy,
            cr * sp * cy + sr * cp * sy,
            cr * cp * sy - sr * sp * cy,
            cr * cp * cy + sr * sp * sy,
        ),
        -1,
    )


def quat_apply(quat_xyzw: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Rotates vectors, shapes (..., 4) and (..., 3) -> (..., 3)."""
    imaginary, real = quat_xyzw[..., :3], quat_xyzw[..., 3:]
    cross = 2 * np.cross(imaginary, vectors)
    return vectors + real * cross + np.cross(imaginary, cross)


def pose_apply(pose: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Maps points of a body into the pose's parent frame: pose (..., 7) = xyz [m] + quat_xyzw, points (..., 3)."""
    return pose[..., :3] + quat_apply(pose[..., 3:], points)


def pose_apply_inverse(pose: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Maps points of the pose's parent frame into the body's: inverse of :func:`pose_apply`."""
    conjugate = pose[..., 3:] * np.array([-1.0, -1.0, -1.0, 1.0])
    return quat_apply(conjugate, points - pose[..., :3])
