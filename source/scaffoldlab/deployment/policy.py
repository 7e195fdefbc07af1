"""A policy as one ONNX file that says what it sees and what its actions mean, and its runtime without torch."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from scaffoldlab.errors import ScaffoldError

Positive = Annotated[float, Field(gt=0)]


class PolicyMetadata(BaseModel):
    """What a policy was trained for; each field is one entry of the file's ``metadata_props``, as JSON."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())

    format_version: Literal[1] = 1
    task: str
    robot: str
    joint_names: list[str]
    """Order of every joint array: the joints that move the wrist, then the fingers from root to tip."""
    keypoint_names: list[str]
    observation_terms: dict[str, int]
    """Terms of the observation in order, and how many numbers each has."""
    horizon_offsets: list[int]
    """Control steps ahead at which the plan is seen."""
    relative_plan: bool
    """Whether the plan is seen from the keypoints and the wrist as they are now."""
    finger_actions: Literal["all", "each"]
    action_size: Annotated[int, Field(ge=7)]
    action_clip: tuple[float, float] = (-1.0, 1.0)
    """Clip of the six wrist actions; the closure of the fingers is clipped to 0..1."""
    position_limit: Positive
    """Wrist offset of an action of 1 [m]."""
    rotation_limit: Positive
    """Wrist rotation of an action of 1 [rad]."""
    action_average: Annotated[float, Field(ge=0, lt=1)]
    """Weight of the past in the exponential average of the joint targets."""
    arm_damping: Positive | None = None
    """lambda of the arm's damped least squares; None for that of the robot file."""
    control_rate_hz: Positive
    episode_steps: Annotated[int, Field(ge=2)]
    """T, control steps over which a plan is spread."""
    position_frame: Literal["env: x forward, y left, z up [m]"] = "env: x forward, y left, z up [m]"
    rotation_order: Literal["R = Rz(yaw) Ry(pitch) Rx(roll) [rad]"] = "R = Rz(yaw) Ry(pitch) Rx(roll) [rad]"
    quaternion_order: Literal["xyzw"] = "xyzw"

    @property
    def observation_size(self) -> int:
        """Numbers of an observation."""
        return sum(self.observation_terms.values())

    def properties(self) -> dict[str, str]:
        """The fields as text, for ``metadata_props``."""
        return {name: json.dumps(value) for name, value in self.model_dump().items()}

    @classmethod
    def read(cls, properties: dict[str, str], where: str) -> Self:
        """The metadata of a file.

        Raises:
            ScaffoldError: An entry is missing or not allowed; ``where`` names the file.
        """
        try:
            return cls.model_validate({name: _json(text) for name, text in properties.items()})
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            raise ScaffoldError(
                f"{where}: metadata entry {field!r}: {first['msg'].lower()}; not exported by ScaffoldLab, or by "
                "another version of it. Export it again: scaffoldlab export --task TASK --checkpoint CHECKPOINT"
            ) from None


class OnnxPolicy:
    """Runs an exported policy; observation normalisation is inside the file.

    Args:
        path: File written by ``scaffoldlab export``.

    Attributes:
        metadata: What it sees and what its actions mean.

    Raises:
        ScaffoldError: onnxruntime is missing, or the file is missing, unreadable, or not one of ours.
    """

    def __init__(self, path: Path):
        try:
            import onnxruntime
        except ImportError:
            raise ScaffoldError(
                "a policy.onnx is run by onnxruntime, which is not installed here. Install it with "
                "`pip install onnxruntime`, or use the environment of `make setup`."
            ) from None
        if not path.is_file():
            raise ScaffoldError(f"policy {path}: no such file. Make one with `scaffoldlab export`.")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # a small network at 60 Hz: threads would only wake up
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own errors share no base class
            raise ScaffoldError(f"policy {path}: not a readable ONNX file ({str(error).splitlines()[0]}).") from None
        self.metadata = PolicyMetadata.read(self._session.get_modelmeta().custom_metadata_map, str(path))
        (self._input,) = self._session.get_inputs()
        sizes = (self._input.shape[-1], self._session.get_outputs()[0].shape[-1])
        expected = (self.metadata.observation_size, self.metadata.action_size)
        if sizes != expected:
            raise ScaffoldError(
                f"policy {path}: the network maps {sizes[0]} numbers to {sizes[1]}, its metadata say "
                f"{expected[0]} to {expected[1]}. Export it again."
            )

    def __call__(self, observation: np.ndarray) -> np.ndarray:
        """The mean action, shape (observation_size,) -> (action_size,)."""
        (action,) = self._session.run(None, {self._input.name: np.asarray(observation, np.float32)[None]})
        return np.asarray(action)[0]


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
