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


def rpy_from_quat_xyzw(quat_xyzw: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Roll, pitch, yaw [rad] of unit quaternions x y z w, those nearest to some angles, shape (..., 4) -> (..., 3).

    Where the pitch is +-pi/2, roll and yaw turn about one axis; there the roll is that of ``near``, shape (..., 3).
    """
    x, y, z, w = np.moveaxis(np.asarray(quat_xyzw, float), -1, 0)
    sine = np.clip(2 * (w * y - z * x), -1, 1)
    roll = np.arctan2(2 * (w * x + y * z), 1 - 2 * (x * x + y * y))
    yaw = np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
    locked, sign = np.abs(sine) > 1 - 1e-12, np.sign(sine)
    turned = np.arctan2(2 * (w * z - x * y), 1 - 2 * (x * x + z * z))  # then yaw - roll, or yaw + roll
    roll, yaw = np.where(locked, near[..., 0], roll), np.where(locked, turned + sign * near[..., 0], yaw)
    return rpy_near(np.stack((roll, np.arcsin(sine), yaw), -1), near)


def rpy_near(rpy: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """The same rotations in the angles nearest to a reference [rad], shapes (..., 3).

    The same rotation has the angles (roll, pitch, yaw) and (roll + pi, pi - pitch, yaw + pi), each up to full turns.
    """
    rpy, reference = np.asarray(rpy, float), np.asarray(reference, float)
    other = rpy * (1, -1, 1) + np.pi
    options = [o - 2 * np.pi * np.round((o - reference) / (2 * np.pi)) for o in (rpy, other)]
    gaps = [np.abs(o - reference).sum(-1, keepdims=True) for o in options]
    return np.where(gaps[1] < gaps[0], options[1], options[0])


def rpy_chain(rpy: np.ndarray, start: np.ndarray) -> np.ndarray:
    """A sequence of rotations in angles that do not jump, the first near ``start`` [rad], shapes (n, 3) and (3,)."""
    chain = []
    for angles in np.asarray(rpy, float):
        chain.append(rpy_near(angles, chain[-1] if chain else start))
    return np.array(chain).reshape(-1, 3)


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


def not_rigid(matrix: np.ndarray) -> str:
    """Why a matrix of shape (4, 4) is no rigid transform, or nothing."""
    if not np.isfinite(matrix).all():
        return "it holds numbers that are not finite"
    rotation = matrix[:3, :3]
    off = float(np.abs(rotation @ rotation.T - np.eye(3)).max())
    if off > 1e-2 or np.linalg.det(rotation) < 0:
        return f"its rotation part is off by {off:.2g}, or mirrors"
    return ""
