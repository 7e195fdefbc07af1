"""What the tests of deployment share: metadata, poses, and a robot behind UDP."""

import json
import socket
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from scaffoldlab.camera import Camera, RgbdImage
from scaffoldlab.deployment.policy import PolicyMetadata
from scaffoldlab.geometry import matrix_from_rpy
from scaffoldlab.specs.models import load_task

POSE_EC = Camera.look_at((-0.4, 0.8, 1.6), (0.0, 0.0, 0.95), width=160, height=120, fov_deg=60).pose_ec
"""A camera that looks down at the counter."""


def metadata_of(task: str, /, **changes: Any) -> PolicyMetadata:
    """What a policy of a task would say with the default settings: T of the task, 15 offsets, Table 4."""
    composition = load_task(task)
    joints, count = composition.robot.wrist_joints + composition.robot.finger_joints, len(composition.task.keypoints)
    sizes = {"joint_positions": len(joints), "joint_velocities": len(joints), "action_average": len(joints)}
    sizes |= {"fingertip_poses": 28, "initial_keypoints": 3 * count, "keypoints": 3 * count, "wrist": 6}
    arm = composition.robot.arm
    values: dict[str, Any] = dict(
        task=task, robot=composition.task.robot, joint_names=joints,
        keypoint_names=list(composition.task.keypoint_names),
        observation_terms=sizes | {"future_plan": (3 * count + 6) * 15},
        horizon_offsets=[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 20, 30, 40, 50, 60], relative_plan=True,
        finger_actions="all", action_size=7, position_limit=0.1 if arm else 0.05,
        rotation_limit=np.radians(20) if arm else 0.3, action_average=0.9, arm_damping=0.1 if arm else None,
        control_rate_hz=60.0, episode_steps=composition.task.episode_steps,
    )  # fmt: skip
    return PolicyMetadata.model_validate(values | changes)


def pose_in_camera(
    position_e: np.ndarray, rpy: tuple[float, float, float] = (0.0, 0.0, 0.3), *, pose_ec: np.ndarray = POSE_EC
) -> np.ndarray:
    """Body to camera frame of a body at a position in the env frame, shape (4, 4)."""
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = matrix_from_rpy(np.array(rpy)), position_e
    return np.linalg.inv(pose_ec) @ pose


def write_capture(image: RgbdImage, folder: Path) -> None:
    """Writes a picture as a real camera's program does: depth in whole millimetres, OpenCV's pixel centres."""
    for name, array in (("rgb", image.rgb), ("depth", np.round(image.depth * 1000).astype(np.uint16))):
        (folder / name).mkdir(parents=True)
        Image.fromarray(array).save(folder / name / "0001.png")
    intrinsics = image.camera.intrinsics.copy()
    intrinsics[:2, 2] -= 0.5
    np.savetxt(folder / "cam_K.txt", intrinsics)
    np.savetxt(folder / "camera_in_env.txt", image.camera.pose_ec)


class UdpServer:
    """A robot that answers each message with its joint state, and is at once where it is told to be.

    With ``moves=False`` somebody else moves it: sets ``positions`` and ``velocities`` and calls :meth:`push`.
    """

    def __init__(self, names: list[str], positions: np.ndarray, *, moves: bool = True):
        self.names, self.positions, self.moves = names, np.array(positions, float), moves
        self.velocities = np.full(len(names), 0.25)
        self._sender: Any = None
        self._pushed = 10**6
        self.messages: list[dict] = []
        self.targets: list[dict] = []
        self.noise: list[bytes] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(0.02)
        self.address = f"udp://127.0.0.1:{self._socket.getsockname()[1]}"
        self._open = True
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._open = False
        self._thread.join()
        self._socket.close()

    def state(self, seq: int, **changes: Any) -> bytes:
        message = {
            "seq": seq,
            "positions": dict(zip(self.names, self.positions.tolist(), strict=True)),
            "velocities": dict(list(zip(self.names, self.velocities.tolist(), strict=True))[::-1]),
        }
        return json.dumps(message | changes).encode()

    def push(self) -> None:
        """Sends the joint state to whoever wrote last."""
        self._pushed += 1
        self._socket.sendto(self.state(self._pushed), self._sender)

    def wait(self, count: int) -> dict:
        """The targets of this number, when they have come."""
        deadline = time.monotonic() + 5
        while len(self.targets) < count:
            assert time.monotonic() < deadline, f"targets {count} have not come"
            time.sleep(0.0005)
        return self.targets[count - 1]

    def _serve(self) -> None:
        while self._open:
            try:
                packet, self._sender = self._socket.recvfrom(65536)
            except TimeoutError:
                continue
            message = json.loads(packet)
            for name, value in message["targets"].items() if self.moves else ():
                self.positions[self.names.index(name)] = value
            self.messages.append(message)
            self.targets += [message["targets"]] if message["targets"] else []
            for extra in self.noise:
                self._socket.sendto(extra, self._sender)
            if self.moves or not message["targets"]:
                self._socket.sendto(self.state(len(self.messages)), self._sender)


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
