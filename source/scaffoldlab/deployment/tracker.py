"""Object poses from a folder that a tracker is writing, and the gate that keeps wrong ones from the policy."""

import functools
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from scaffoldlab.errors import ScaffoldError
from scaffoldlab.geometry import not_rigid

LOOK_BACK = 15
"""Polls without a new pose after which lower numbers are looked at too: 0.25 s at the control rate."""


class ObInCamFolder:
    """Poses as FoundationPose and BundleSDF write them: ``ob_in_cam/ID.txt``, 4 x 4, object to camera.

    ID is a number, of the picture or its time; other names are passed over, and what lies there at the start is of an
    earlier run. The object frame has to be the body's frame: track with the mesh that the task's asset was made from. A
    file that is still being written is read again when it has grown.

    Args:
        folder: Holds ``BODY/ob_in_cam/`` for each body; for a single body ``ob_in_cam/``, or the files themselves.
        bodies: Bodies that are tracked, e.g. ``apple`` or ``cabinet/drawer_top``.

    Raises:
        ScaffoldError: There is no such folder. Those of the bodies may come later.
    """

    def __init__(self, folder: Path, bodies: Sequence[str]):
        if not folder.is_dir():
            raise ScaffoldError(f"tracker {folder}: no such folder. Start the tracker first, or correct the path.")
        places = {body: [folder / body / "ob_in_cam", folder / body] for body in bodies}
        if len(bodies) == 1:
            places[bodies[0]] += [folder / "ob_in_cam", folder]
        self._files = {body: [_PoseFiles(place) for place in places[body]] for body in bodies}

    def poll(self) -> dict[str, np.ndarray]:
        """The newest complete pose of each body that has a new one, body to camera frame, shape (4, 4)."""
        found = {body: self._newest(body) for body in self._files}
        return {body: pose for body, pose in found.items() if pose is not None}

    def _newest(self, body: str) -> np.ndarray | None:
        for files in self._files[body]:
            pose = files.newest()
            if files.number is not None:  # the first place with poses is where they come from
                return pose
        return None


class _PoseFiles:
    """Pose files in one folder: the highest number is the newest.

    A lower number that is written while no higher one comes means that the tracker counts from the start again.

    Attributes:
        number: That of the last pose that was given; None if there is none, or the folder is gone.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.number: float | None = None
        self._seen = {entry.name: _written(entry) for _, entry in self._numbered()}
        self._polls = 0  # since the last pose

    def newest(self) -> np.ndarray | None:
        """The newest complete pose that was written since the last call, or None."""
        files, last = self._numbered(), self.number
        if not files:  # the tracker has emptied the folder to start again
            self.number = None
        elif last is not None:
            self._polls += 1
            back = self._polls % LOOK_BACK == 0
            files = [(number, entry) for number, entry in files if number > last or (back and number < last)]
        pose = None
        for number, entry in sorted(files, key=lambda file: file[0], reverse=True):
            written = _written(entry)
            if written != self._seen.get(entry.name):
                self._seen[entry.name] = written
                if pose is None and (pose := _read(Path(entry.path))) is not None:
                    self.number, self._polls = number, 0
        return pose

    def _numbered(self) -> list[tuple[float, os.DirEntry]]:
        if (self.folder / "cam_K.txt").exists():  # a capture, whose matrices are no poses
            return []
        try:
            with os.scandir(self.folder) as entries:
                return [(number, entry) for entry in entries if (number := _number(entry.name)) is not None]
        except OSError:  # not there yet, or moved away between two looks
            return []


@functools.cache
def _number(name: str) -> float | None:
    """The number that a pose file has for a name."""
    return float(name[:-4]) if re.fullmatch(r"[0-9]+(\.[0-9]+)?\.txt", name) else None


def _written(entry: os.DirEntry) -> tuple[int, int] | None:
    """When a file was written [ns] and its size, which change together with what is in it; None if it is gone."""
    try:
        status = entry.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


class PoseGate:
    """Lets the pose of one body through unless it is missing, late or wrong.

    A pose is wrong if it is no rigid transform, if its rotation is exactly the identity (a failed registration of
    FoundationPose), or if a keypoint of the body jumps. A jump that later poses agree with is believed after
    ``settle`` of them: the body was moved while nobody looked.

    Args:
        body: Name, for messages.
        points_b: The body's keypoints in its frame [m], shape (P, 3).
        pose_ec: Camera to env frame, shape (4, 4).
        max_age: Longest time without a pose [s].
        max_jump: Largest step of a keypoint between two poses [m].
        settle: Number of poses that have to agree with a jump.

    Attributes:
        points_e: The keypoints by the last pose that was let through, env frame [m], shape (P, 3), or None.
        trouble: Why there is nothing to rely on now; empty if there is.
    """

    def __init__(
        self,
        body: str,
        points_b: np.ndarray,
        pose_ec: np.ndarray,
        *,
        max_age: float = 0.25,
        max_jump: float = 0.05,
        settle: int = 10,
    ):
        self.body, self.points_b, self.pose_ec = body, points_b, pose_ec
        self.max_age, self.max_jump, self.settle = max_age, max_jump, settle
        self.points_e: np.ndarray | None = None
        self.trouble = f"no pose of {body} yet"
        self._time = -np.inf
        self._candidate: tuple[np.ndarray, int] | None = None

    def update(self, pose_c: np.ndarray | None, now: float) -> None:
        """Takes a new pose, body to camera frame, or the news that there is none."""
        if pose_c is not None:
            self.trouble = self._judge(pose_c)
            if not self.trouble:
                self._time = now
        elif self.points_e is not None and not self.trouble and now - self._time > self.max_age:
            self.trouble = f"no pose of {self.body} for {self.max_age:g} s"

    def _judge(self, pose_c: np.ndarray) -> str:
        reason = not_rigid(pose_c)
        if reason:
            return f"wrong pose of {self.body}: {reason}"
        if np.array_equal(pose_c[:3, :3], np.eye(3)):
            return f"wrong pose of {self.body}: its rotation is the identity, registration has failed"
        points = (np.c_[self.points_b, np.ones(len(self.points_b))] @ (self.pose_ec @ pose_c).T)[:, :3]
        jump = 0.0 if self.points_e is None else _distance(points, self.points_e)
        if jump > self.max_jump:
            before, agreeing = self._candidate or (points, 0)
            agreeing = agreeing + 1 if _distance(points, before) <= self.max_jump else 1
            if agreeing < self.settle:
                self._candidate = points, agreeing
                return f"wrong pose of {self.body}: it jumped by {100 * jump:.0f} cm"
        self.points_e, self._candidate = points, None
        return ""


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b, axis=-1).max())


def _read(path: Path) -> np.ndarray | None:
    """A complete pose, or None: the last row is written last and is 0 0 0 1."""
    try:
        numbers = np.array(path.read_text().split(), float)
    except (OSError, ValueError):
        return None
    if not np.array_equal(numbers[12:], (0, 0, 0, 1)):
        return None
    return numbers.reshape(4, 4)
