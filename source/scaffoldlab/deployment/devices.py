"""What a deployment needs of the world: an RGB-D camera, a pose tracker and a robot, as small protocols."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from scaffoldlab.camera import RgbdImage


class RgbdCamera(Protocol):
    """A camera that stands still while the policy runs."""

    def capture(self) -> RgbdImage:
        """The newest picture, with the camera's intrinsics and its pose in the env frame."""
        ...


class PoseTracker(Protocol):
    """Tracks bodies in the frame of the camera."""

    def poll(self) -> dict[str, np.ndarray]:
        """Poses that arrived since the last call: body to camera frame, shape (4, 4), OpenCV axes [m]; never waits."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class JointState:
    """Joints of the robot at one time.

    Attributes:
        time: When it arrived, on the clock of the loop [s].
        position: Joint positions [m, rad], shape (J,).
        velocity: Joint velocities [m/s, rad/s], shape (J,).
    """

    time: float
    position: np.ndarray
    velocity: np.ndarray


class Robot(Protocol):
    """A position-controlled robot; joints are in the order of the robot file."""

    def state(self) -> JointState | None:
        """The newest joint state, or None while none has come; never waits."""
        ...

    def send(self, targets: np.ndarray) -> None:
        """Sends joint position targets [m, rad], shape (J,); they hold until the next ones."""
        ...

    def close(self) -> None:
        """Gives the connection back; the robot holds its last targets."""
        ...
