"""Whether the arm that carries a hand gets it to the waypoints of a plan: the NumPy twin of robots/arm.py."""

from collections.abc import Iterable, Iterator

import numpy as np

from scaffoldlab.geometry import matrix_from_rpy, quat_xyzw_from_rpy
from scaffoldlab.specs.models import Composition

STEPS, STRIDE = 60, 0.2
"""Steps of the arm for each waypoint at most (more change nothing), and the largest step of a joint [rad]."""


class ArmReach:
    """Kinematics and damped least squares of an arm (Scaffolds, eq. 5), one posture at a time, in the env frame.

    Planning loads no torch, and for one posture NumPy is far faster: 8 ms for a plan of 20 waypoints.

    Args:
        composition: A task whose robot has an arm.

    Attributes:
        base_e: Where the base of the arm stands [m], shape (3,).
    """

    def __init__(self, composition: Composition):
        from scaffoldlab.usd.reader import joints

        robot, arm = composition.robot, composition.robot.arm
        assert arm is not None
        above, chain, body = {joint.child: joint for joint in joints(composition.usd(robot.usd))}, [], robot.palm
        while body:
            chain.insert(0, above[body])
            body = chain[0].parent
        self.base_e, self._rest, self._damping = np.array(arm.position), np.array(arm.rest), arm.damping
        self._table_height = composition.scene.table_height
        moving = [joint for joint in chain if joint.name in robot.wrist_joints]
        self._limits = np.array([joint.limits for joint in moving]).T
        self._axes = np.array([joint.axis for joint in moving])
        self._cross = np.cross(self._axes[:, None], -np.eye(3))  # [a]x of each axis, shape (7, 3, 3)
        before, pose = [], _matrix(np.array([*arm.position, *quat_xyzw_from_rpy(np.radians((0, 0, arm.yaw_deg)))]))
        for joint in chain:
            pose = pose @ _matrix(joint.in_parent)
            if joint in moving:
                before.append(pose)
                pose = np.eye(4)
            pose = pose @ np.linalg.inv(_matrix(joint.in_child))
        self._before, self._palm = np.array(before), pose  # what lies before each joint that moves, and after the last
        self._center = np.array(composition.task.grasp.center)
        self._out_of_palm = matrix_from_rpy(np.radians(robot.palm_rpy_deg)).T

    def follow(
        self, wrist_e: Iterable[tuple[np.ndarray, np.ndarray]], *, distance: float, angle: float
    ) -> Iterator[tuple[np.ndarray, float, float]]:
        """Where the hand gets to, waypoint after waypoint, each from the posture at the one before.

        The arm goes on until it is near enough. A waypoint below the table is taken for the point above it, as the arm
        takes it (appendix C.5).

        Args:
            wrist_e: Hand point [m], shape (3,), and rotation, shape (3, 3), of each waypoint.
            distance: How far off is near enough [m].
            angle: How far turned is near enough [rad].

        Yields:
            Hand point [m], shape (3,), how far off it is [m], and how far the hand is turned [rad].
        """
        joints = self._rest
        for point_e, rotation in wrist_e:
            for steps in range(STEPS + 1):
                error, jacobian = self.error(joints, point_e, rotation)
                off, turned = float(np.linalg.norm(error[:3])), float(np.linalg.norm(error[3:]))
                if (off <= distance and turned <= angle) or steps == STEPS:
                    yield self._above_table(point_e) - error[:3], off, turned
                    break
                joints = joints + np.clip(self.step(joints, error, jacobian) - joints, -STRIDE, STRIDE)

    def step(self, joints: np.ndarray, error: np.ndarray, jacobian: np.ndarray) -> np.ndarray:
        """Joint targets theta + J^T (J J^T + lambda^2 I)^-1 e within the limits [rad], shape (7,) (eq. 5)."""
        square = jacobian @ jacobian.T + self._damping**2 * np.eye(6)
        return np.clip(joints + jacobian.T @ np.linalg.solve(square, error), *self._limits)

    def error(self, joints: np.ndarray, point_e: np.ndarray, rotation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What the hand lacks, as displacement [m] and rotation vector [rad], shape (6,), and its Jacobian, (6, 7)."""
        from scipy.spatial.transform import Rotation

        sine, cosine = np.sin(joints)[:, None, None], np.cos(joints)[:, None, None]
        frames, pose = self._before.copy(), np.eye(4)
        frames[:, :3, :3] @= np.eye(3) + sine * self._cross + (1 - cosine) * self._cross @ self._cross
        for number, frame in enumerate(frames):
            frames[number] = pose = pose @ frame
        palm = pose @ self._palm
        point = palm[:3, 3] + palm[:3, :3] @ self._center
        turn = rotation @ (palm[:3, :3] @ self._out_of_palm).T
        axes = (frames[:, :3, :3] @ self._axes[..., None])[..., 0]
        jacobian = np.concatenate((np.cross(axes, point - frames[:, :3, 3]), axes), -1).T
        return np.concatenate((self._above_table(point_e) - point, Rotation.from_matrix(turn).as_rotvec())), jacobian

    def _above_table(self, point_e: np.ndarray) -> np.ndarray:
        lowest = -np.inf if self._table_height is None else self._table_height
        return np.maximum(point_e, (-np.inf, -np.inf, lowest))


def _matrix(pose: np.ndarray) -> np.ndarray:
    """Transform of a pose xyz [m] + quat_xyzw, shape (7,) -> (4, 4)."""
    from scipy.spatial.transform import Rotation

    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = Rotation.from_quat(pose[3:]).as_matrix(), pose[:3]
    return matrix
