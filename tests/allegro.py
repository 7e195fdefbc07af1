"""The published Allegro hand (right): its numbers, and where its fingertips are, by plain rotation matrices."""

import numpy as np

FINGERS = {"index": (0.0435, -0.0015, -5.0), "middle": (0.0, 0.0007, 0.0), "ring": (-0.0435, -0.0015, 5.0)}
"""Base in the palm: y, z [m] and roll [deg]."""
LIMITS = ((-0.47, 0.47), (-0.196, 1.61), (-0.174, 1.709), (-0.227, 1.618))
THUMB_LIMITS = ((0.263, 1.396), (-0.105, 1.163), (-0.189, 1.644), (-0.162, 1.719))


def turn(axis: str, angle: float) -> np.ndarray:
    """Rotation matrix of an angle [rad] round x, y or z."""
    c, s = np.cos(angle), np.sin(angle)
    i, j = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    matrix = np.eye(3)
    matrix[i, i], matrix[i, j], matrix[j, i], matrix[j, j] = c, -s, s, c
    return matrix


def matrix_of(quat_xyzw: np.ndarray) -> np.ndarray:
    """Rotation matrix of a unit quaternion, by the textbook's nine products."""
    x, y, z, w = quat_xyzw
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def hand_kinematics(joints: dict[str, float]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Position and rotation of palm and fingertip bodies from the published numbers."""
    q = lambda name: joints.get(name, 0.0)  # noqa: E731
    palm_position = np.array([q("wrist_x"), q("wrist_y"), q("wrist_z")])
    palm = turn("z", q("wrist_yaw")) @ turn("y", q("wrist_pitch")) @ turn("x", q("wrist_roll"))
    palm = palm @ turn("y", np.pi / 2)
    found = {"palm": (palm_position, palm)}
    for finger, (y, z, roll) in FINGERS.items():
        position, rotation = palm_position + palm @ (0, y, z), palm @ turn("x", np.radians(roll))
        for number, (axis, length) in enumerate(zip("zyyy", (0, 0.0164, 0.054, 0.0384), strict=True)):
            position = position + rotation @ (0, 0, length)
            rotation = rotation @ turn(axis, q(f"{finger}_{number}"))
        found[f"{finger}_tip"] = (position, rotation)
    # The published first axis of the thumb is -x: a turn by -q round x.
    position = palm_position + palm @ (-0.0182, 0.019333, -0.045987)
    rotation = palm @ turn("z", -1.5708) @ turn("y", -1.65806) @ turn("x", -q("thumb_0"))
    for number, (axis, step) in enumerate(
        (("z", (-0.027, 0.005, 0.0399)), ("y", (0, 0, 0.0177)), ("y", (0, 0, 0.0514))), start=1
    ):
        position = position + rotation @ step
        rotation = rotation @ turn(axis, q(f"thumb_{number}"))
    found["thumb_tip"] = (position, rotation)
    return found
