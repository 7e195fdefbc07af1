"""A library of plans: N plans of one task in one sealed file, and as arrays for training."""

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from scaffoldlab import __version__
from scaffoldlab.errors import ScaffoldError
from scaffoldlab.files import write_atomic
from scaffoldlab.keypoints.keypoint import Keypoint
from scaffoldlab.plans.plan import Plan

SUFFIX = ".plans.npz"
_VERSION = 1
_HEADER = "scaffoldlab-plans.json"  # the first entry of the zip; no other npz file begins with it
_SEAL = b"sha256:"


@dataclass(frozen=True, eq=False)
class PlanLibrary:
    """N plans of one task, alike in waypoint count, keypoint names and initial state.

    The keypoints of one name may sit on different bodies and points in different plans: a model located them.

    The file is an uncompressed ``.npz`` whose first entry is a JSON header and whose zip comment is the SHA-256
    digest of every byte before it. The same content gives the same bytes, on every machine.

    Attributes:
        plans: The N plans, N >= 1.
        header: What is known of the library as a whole: command, seed, planner, ... (JSON values).

    Raises:
        ScaffoldError: There is no plan, or one differs from the first in what they have to share.
    """

    plans: tuple[Plan, ...]
    header: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.plans:
            raise ScaffoldError("plan library: got 0 plans; allowed: at least 1.")
        shared = _shared(self.plans[0])
        for index, plan in enumerate(self.plans):
            for name, got in _shared(plan).items():
                if got != shared[name]:
                    raise ScaffoldError(
                        f"plan library: {name} of plan {index} is {got!r}, of plan 0 {shared[name]!r}; "
                        "allowed: the same in all plans. Make one library per task and waypoint count."
                    )

    def __len__(self) -> int:
        return len(self.plans)

    @property
    def task(self) -> str:
        """Task of all plans."""
        return self.plans[0].task

    @property
    def keypoint_names(self) -> tuple[str, ...]:
        """Names of the K keypoints, in order."""
        return tuple(k.name for k in self.plans[0].keypoints)

    @property
    def waypoint_count(self) -> int:
        """n, waypoints of each plan."""
        return len(self.plans[0].wrist_e)

    @property
    def digest(self) -> str:
        """SHA-256 of the content, 64 hex digits: equal for equal libraries, and the seal of the saved file."""
        return self._pack()[-64:].decode()

    def subset(self, indices: Iterable[int]) -> Self:
        """The library with only the plans of these indices, in this order."""
        wanted = [int(i) for i in indices]
        wrong = [i for i in wanted if not 0 <= i < len(self)]
        if wrong:
            raise ScaffoldError(
                f"plan library of task {self.task!r}: got index {wrong[0]}; allowed: 0 to {len(self) - 1}."
            )
        return replace(self, plans=tuple(self.plans[i] for i in wanted))

    def batch(self, steps: int) -> "PlanBatch":
        """All plans as arrays, with targets for this number of control steps."""
        tracks = [plan.tracks(steps) for plan in self.plans]
        bodies = sorted({k.body for plan in self.plans for k in plan.keypoints})
        return PlanBatch(
            keypoints_e=np.stack([keypoints for keypoints, _ in tracks]).astype(np.float32),
            wrist_e=np.stack([wrist for _, wrist in tracks]).astype(np.float32),
            body_names=tuple(bodies),
            body_index=np.array([[bodies.index(k.body) for k in plan.keypoints] for plan in self.plans]),
            point_b=np.array([[k.point_b for k in plan.keypoints] for plan in self.plans], np.float32),
            initial_state={
                name: np.stack([plan.initial_state[name] for plan in self.plans]).astype(np.float32)
                for name in self.plans[0].initial_state
            },
        )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes the library to one file, whole or not at all, and returns its path.

        Args:
            path: A file that ends in ``.plans.npz``; missing folders are made.
        """
        if not Path(path).name.endswith(SUFFIX):
            raise ScaffoldError(
                f"plan library of task {self.task!r}: got path {path}; allowed: a name ending in {SUFFIX}."
            )
        write_atomic(path, self._pack())
        return Path(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str], task: str | None = None) -> Self:
        """Reads a library that :meth:`save` wrote; nothing in the file is executed or unpickled.

        Args:
            path: The file, or a folder that holds exactly one.
            task: Task that it has to be for; None takes any.

        Raises:
            ScaffoldError: There is none, or it is not a plan library, of another version, damaged, or of another task.
        """
        file = _locate(Path(path), task)
        try:
            data = file.read_bytes()
        except OSError as error:
            raise ScaffoldError(f"{file}: could not be read ({error.strerror}). Check its permissions.") from error
        _check_seal(data, file, task)
        try:
            entries = np.load(io.BytesIO(data), allow_pickle=False)
            header = json.loads(entries[_HEADER])
            if header["version"] != _VERSION:
                raise ScaffoldError(
                    f"{file}: a plan library of format version {header['version']}; ScaffoldLab {__version__} reads "
                    f"version {_VERSION}. Use the ScaffoldLab that wrote it, or make it again: {_command(task)}"
                )
            if task is not None and header["task"] != task:
                raise ScaffoldError(
                    f"{file}: a plan library of task {header['task']!r}; allowed here: {task!r}. "
                    f"Choose the other task, or make plans for this one: {_command(task)}"
                )
            arrays = {name: entries[name] for name in entries.files if name != _HEADER}
            return cls(_plans_from(header, arrays), header["header"])
        except (KeyError, ValueError, TypeError, IndexError, zipfile.BadZipFile) as error:
            raise ScaffoldError(
                f"{file}: a plan library with an intact checksum but unexpected content ({error!r}): "
                f"another program wrote it. Make it again: {_command(task)}"
            ) from error

    def _pack(self) -> bytes:
        header = {
            "version": _VERSION,
            "task": self.task,
            "keypoint_names": self.keypoint_names,
            "bodies": [[k.body for k in plan.keypoints] for plan in self.plans],
            "provenance": [plan.provenance for plan in self.plans],
            "header": self.header,
        }
        arrays = {
            "keypoints_e": [plan.keypoints_e for plan in self.plans],
            "wrist_e": [plan.wrist_e for plan in self.plans],
            "point_b": [[k.point_b for k in plan.keypoints] for plan in self.plans],
        } | {f"initial_state/{s}": [plan.initial_state[s] for plan in self.plans] for s in self.plans[0].initial_state}
        try:
            entries = {_HEADER: json.dumps(header, sort_keys=True, allow_nan=False, indent=1).encode()}
        except (TypeError, ValueError) as error:
            raise ScaffoldError(
                f"plan library of task {self.task!r}: its header or a plan's provenance is not JSON ({error}); "
                "allowed: text, finite numbers, booleans, None, and lists and dicts of them."
            ) from error
        for name, values in sorted(arrays.items()):
            entry = io.BytesIO()
            np.lib.format.write_array(entry, np.array(values, "<f8", order="C"), version=(1, 0), allow_pickle=False)
            entries[f"{name}.npy"] = entry.getvalue()
        return _seal(entries)


@dataclass(frozen=True, kw_only=True, eq=False)
class PlanBatch:
    """The plans of a library as arrays; T control steps, positions in the env frame [m], all float32.

    Attributes:
        keypoints_e: Keypoint targets, shape (N, T, K, 3).
        wrist_e: Wrist targets, shape (N, T, 6): hand point [m], then roll, pitch, yaw [rad].
        body_names: The B bodies that carry a keypoint in any plan, sorted.
        body_index: Body of each keypoint, an index into ``body_names``, shape (N, K), int64.
        point_b: Each keypoint in the frame of its body [m], shape (N, K, 3).
        initial_state: What a reset restores, by name, each of shape (N, ...); see :class:`Plan`.
    """

    keypoints_e: np.ndarray
    wrist_e: np.ndarray
    body_names: tuple[str, ...]
    body_index: np.ndarray
    point_b: np.ndarray
    initial_state: dict[str, np.ndarray]


def _shared(plan: Plan) -> dict[str, Any]:
    """What all plans of a library have in common."""
    return {
        "task": plan.task,
        "waypoint count": len(plan.wrist_e),
        "keypoint names": tuple(k.name for k in plan.keypoints),
        "initial state": {name: np.shape(value) for name, value in sorted(plan.initial_state.items())},
    }


def _plans_from(header: dict[str, Any], arrays: dict[str, np.ndarray]) -> tuple[Plan, ...]:
    states = {name.partition("/")[2]: value for name, value in arrays.items() if name.startswith("initial_state/")}
    return tuple(
        Plan(
            task=header["task"],
            keypoints=tuple(
                Keypoint(name, body, tuple(point.tolist()))
                for name, body, point in zip(header["keypoint_names"], bodies, arrays["point_b"][i], strict=True)
            ),
            keypoints_e=arrays["keypoints_e"][i],
            wrist_e=arrays["wrist_e"][i],
            initial_state={name: value[i] for name, value in states.items()},
            provenance=header["provenance"][i],
        )
        for i, bodies in enumerate(header["bodies"])
    )


def _seal(entries: dict[str, bytes]) -> bytes:
    """An npz file of these entries, ending in the digest of every byte before it; free of clock and platform."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.comment = _SEAL + b"0" * 64
        for name, data in entries.items():
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.create_system = 3  # the default names the writer's operating system
            archive.writestr(info, data)
    body = buffer.getvalue()[:-64]
    return body + hashlib.sha256(body).hexdigest().encode()


def _check_seal(data: bytes, file: Path, task: str | None) -> None:
    """Raises unless these bytes are a plan library, of whatever version, exactly as it was written."""
    again = f"Copy it again from its source, or make it again: {_command(task)}"
    if data[:4] != b"PK\3\4" or data[30 : 30 + len(_HEADER)] != _HEADER.encode():
        raise ScaffoldError(
            f"{file}: not a plan library ({len(data)} bytes, which do not begin like one); "
            f"allowed: a {SUFFIX} file that ScaffoldLab wrote. Make one: {_command(task)}"
        )
    if data[-64 - len(_SEAL) : -64] != _SEAL:
        raise ScaffoldError(f"{file}: a truncated plan library: after {len(data)} bytes its end is missing. {again}")
    if data[-64:] != hashlib.sha256(data[:-64]).hexdigest().encode():
        raise ScaffoldError(f"{file}: a damaged plan library: its content does not match its SHA-256 checksum. {again}")


def _locate(path: Path, task: str | None) -> Path:
    """The file itself, or the only library in a folder."""
    if not path.exists():
        raise ScaffoldError(f"{path}: no such plan library. Make one: {_command(task)}")
    if not path.is_dir():
        return path
    found = sorted(p for p in path.glob(f"*{SUFFIX}") if p.is_file())
    if len(found) != 1:
        names = ", ".join(p.name for p in found) or "none"
        todo = "Name the one to use." if found else f"Make one: {_command(task)}"
        raise ScaffoldError(
            f"{path}: a folder with {len(found)} plan libraries ({names}); allowed: one, or a file. {todo}"
        )
    return found[0]


def _command(task: str | None) -> str:
    return f"scaffoldlab plan --task {task or 'TASK'} --out plans/"
