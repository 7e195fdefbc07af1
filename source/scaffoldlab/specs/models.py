"""What a task, a scene and a robot are: the YAML files as validated data (see docs/tasks.md)."""

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from scaffoldlab.camera import Camera
from scaffoldlab.errors import ScaffoldError, unknown_name
from scaffoldlab.geometry import quat_xyzw_from_rpy
from scaffoldlab.specs.paths import find_asset, find_named


class Strict(BaseModel):
    """Base of every record: unknown keys are errors, and nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _as_range(value: Any) -> Any:
    return (value, value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _ordered(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        raise ValueError("a range is [low, high] with low <= high, or one number")
    return value


_NUMBER = {"type": "number"}
_PAIR = {"type": "array", "prefixItems": [_NUMBER, _NUMBER], "minItems": 2, "maxItems": 2}
Range = Annotated[
    tuple[float, float],
    BeforeValidator(_as_range),
    AfterValidator(_ordered),
    WithJsonSchema({"anyOf": [_NUMBER, _PAIR]}),
]
"""A number, or [low, high] to sample uniformly from."""

Vector3 = tuple[float, float, float]
Positive = Annotated[float, Field(gt=0)]


# --- scene ----------------------------------------------------------------------------------------------------------


class JointSpec(Strict):
    """Passive joint of an articulated asset."""

    damping: Annotated[float, Field(ge=0)] = 0.0
    """Viscous damping [N s/m or N m s/rad]."""
    friction: Annotated[float, Field(ge=0)] = 0.0
    """Coulomb friction [N or N m]."""


class KeypointSpec(Strict):
    """A keypoint and where it attaches in simulation."""

    name: str
    body: str
    """Asset, or ``asset/link`` of an articulation."""
    point: Vector3 = (0.0, 0.0, 0.0)
    """Point in the body frame [m]."""


class AssetSpec(Strict):
    """One thing in the scene."""

    name: str
    kind: Literal["static", "rigid", "articulation"]
    usd: str
    """File below assets/, e.g. ``objects/apple/apple.usda``."""
    position: Vector3 = (0.0, 0.0, 0.0)
    """Nominal position in the env frame [m]."""
    roll_deg: float = 0.0
    pitch_deg: float = 0.0
    yaw_deg: float = 0.0
    joints: dict[str, JointSpec] = {}
    """Passive joints of an articulation, by name."""

    def pose(self) -> np.ndarray:
        """Nominal pose in the env frame, xyz [m] + quat_xyzw, shape (7,)."""
        rpy = np.radians((self.roll_deg, self.pitch_deg, self.yaw_deg))
        return np.array([*self.position, *quat_xyzw_from_rpy(rpy)])


class CameraSpec(Strict):
    """The camera that plans are made from."""

    eye: Vector3
    target: Vector3
    fov_deg: Annotated[float, Field(gt=5, lt=150)] = 50.0
    """Horizontal field of view [deg]."""
    width: Annotated[int, Field(ge=64, le=4096)] = 800
    height: Annotated[int, Field(ge=64, le=4096)] = 800
    up: Vector3 = (0.0, 0.0, 1.0)
    """Direction that points up in the image, env frame: a camera in somebody's hand is not level."""
    intrinsics: tuple[Positive, Positive, float, float] | None = None
    """fx, fy, cx, cy of a real camera [px], for width x height, in place of fov_deg."""

    def camera(self, *, size: int | None = None) -> Camera:
        """The camera; ``size`` gives it a square picture with that many pixels a side, the middle of a real one's."""
        width, height = (size, size) if size else (self.width, self.height)
        camera = Camera.look_at(self.eye, self.target, width=width, height=height, fov_deg=self.fov_deg, up_e=self.up)
        if self.intrinsics is None:
            return camera
        fx, fy, cx, cy = self.intrinsics
        scale = size / min(self.width, self.height) if size else 1.0
        center = scale * np.array((cx - self.width / 2, cy - self.height / 2)) + np.array((width, height)) / 2
        intrinsics = np.array(((scale * fx, 0, center[0]), (0, scale * fy, center[1]), (0, 0, 1)))
        return replace(camera, intrinsics=intrinsics)


class SceneSpec(Strict):
    """A scene: what stands where, from where it is seen, and where the hand may go."""

    name: str = ""
    description: str
    assets: list[AssetSpec]
    camera: CameraSpec
    workspace: tuple[Vector3, Vector3]
    """Lower and upper corner of the box that plans must stay in, env frame [m]."""
    table_height: float | None = None
    """Height that the wrist target of an arm stays above, env frame [m] (Scaffolds, appendix C.5)."""
    arm_base: Vector3 | None = None
    """Where the base of an arm stands here, env frame [m]; None: where the robot's file has it."""
    keypoints: list[KeypointSpec] = []
    """Candidates that a scan has found, for tasks to choose from."""

    def asset(self, name: str, where: str) -> AssetSpec:
        """The asset of that name.

        Raises:
            ScaffoldError: Unknown name.
        """
        for asset in self.assets:
            if asset.name == name:
                return asset
        raise unknown_name("asset", name, [a.name for a in self.assets], where)


# --- robot ----------------------------------------------------------------------------------------------------------


class DriveSpec(Strict):
    """PD drive of a group of joints (Scaffolds, Table 2)."""

    stiffness: Positive
    damping: Positive
    effort: Positive | list[Positive]
    """Force limit of all joints, or of each [N or N m]."""
    armature: dict[Literal["ovphysx", "newton_mjwarp", "isaacsim_physx"], Annotated[float, Field(ge=0)]]
    """Reflected inertia per engine; the engines need different values (docs/decisions)."""


class ArmSpec(Strict):
    """An arm that carries the hand, and how a wrist target becomes joint targets (Scaffolds, appendix C)."""

    position: Vector3
    """Where its base stands, env frame [m]."""
    yaw_deg: float = 0.0
    rest: Annotated[list[float], Field(min_length=7, max_length=7)]
    """Joint positions from which initial postures are searched [rad]."""
    damping: Positive = 0.1
    """lambda of eq. 5 (the paper: 0.5, which lags; docs/decisions/arm.md)."""
    action_average: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Weight of the past in the joint targets (the paper: 0.98)."""
    position_limit: Positive = 0.05
    """Wrist offset of an action of 1 [m] (the paper: 0.1)."""
    rotation_limit_deg: Positive = 20.0


class RobotSpec(Strict):
    """A hand and the joints that move its wrist: six of a floating hand, or the seven of an arm."""

    name: str = ""
    usd: str
    palm: str
    """Body that carries the fingers."""
    palm_rpy_deg: Vector3
    """Orientation of the palm body when roll, pitch and yaw of the wrist are zero."""
    wrist_joints: Annotated[list[str], Field(min_length=6, max_length=7)]
    """x, y, z, roll, pitch, yaw of a floating hand; those of the arm from the base on."""
    arm: ArmSpec | None = None
    """The arm; a hand without one floats."""
    fingers: dict[str, Annotated[list[str], Field(min_length=1)]]
    """Joints of each finger from the root to the tip."""
    fingertips: dict[str, str]
    """Fingertip body of each finger."""
    wrist_drive: DriveSpec
    finger_drive: DriveSpec

    @model_validator(mode="after")
    def _counts(self) -> "RobotSpec":
        expected = 7 if self.arm else 6
        if len(self.wrist_joints) != expected:
            kind = "on an arm" if self.arm else "that floats"
            raise ValueError(f"wrist_joints of a hand {kind}: allowed: {expected}, got {len(self.wrist_joints)}")
        for drive, joints in ((self.wrist_drive, self.wrist_joints), (self.finger_drive, self.finger_joints)):
            if isinstance(drive.effort, list) and len(drive.effort) != len(joints):
                raise ValueError(f"effort: one number, or one for each of {', '.join(joints)}; got {drive.effort}")
        return self

    @property
    def finger_joints(self) -> list[str]:
        """All finger joints, finger by finger."""
        return [joint for joints in self.fingers.values() for joint in joints]


# --- task -----------------------------------------------------------------------------------------------------------


class PoseRange(Strict):
    """Ranges of a pose in the env frame; a number is a fixed value."""

    x: Range
    y: Range
    z: Range
    roll_deg: Range = (0.0, 0.0)
    pitch_deg: Range = (0.0, 0.0)
    yaw_deg: Range = (0.0, 0.0)


class InitialStateSpec(Strict):
    """What is random at reset."""

    hand: PoseRange
    """Hand point and orientation relative to palm down, fingers forward."""
    objects: dict[str, PoseRange] = {}
    """Root poses of rigid assets and of articulations that nothing holds; others stay where the scene puts them."""
    joints: dict[str, dict[str, Range]] = {}
    """Joint positions of articulated assets [m or rad]; joints not named start at zero."""


class GraspSpec(Strict):
    """What the finger actions open and close."""

    center: Vector3
    """The hand point: grasp centre in the palm frame [m]."""
    actions: Literal["all", "each"] = "all"
    """One action for all fingers, or one for each (Scaffolds, appendix B.2)."""
    open: dict[str, list[float]]
    """Joint positions of each finger at action <= 0 [rad]."""
    close: dict[str, list[float]]
    """Joint positions of each finger at action 1 [rad]."""


class PromptSpec(Strict):
    """Task sentences of the prompts."""

    activity: str
    """Completes "You are controlling a robot hand to ..."."""
    steps: Annotated[list[str], Field(min_length=1)]


class Near(Strict):
    """Two keypoints are closer than a distance [m]."""

    keypoint: str
    to: str
    distance: Positive
    axes: Literal["xyz", "xy"] = "xyz"


class OnTop(Strict):
    """A keypoint's height above another one is within a tolerance of what resting on it gives [m]."""

    keypoint: str
    of: str
    height: float
    tolerance: Positive = 0.02


class JointBeyond(Strict):
    """A joint has moved further than a distance from zero [m or rad]."""

    asset: str
    joint: str
    distance: Positive


class JointWithin(Strict):
    """A joint is closer to zero than a distance, whichever side [m or rad]."""

    asset: str
    joint: str
    distance: Positive


class Upright(Strict):
    """An axis of a body points up, give or take an angle."""

    body: str
    """Asset, or ``asset/link`` of an articulation."""
    axis: Literal["x", "y", "z"] = "z"
    angle_deg: Annotated[float, Field(gt=0, le=90)] = 15.0


class Displaced(Strict):
    """A keypoint is further over ground from where the episode began than a distance [m]."""

    keypoint: str
    distance: Positive
    height_tolerance: Positive | None = None
    """It must have been this close to its first height all the time; none: it may go anywhere."""


class Swings(Strict):
    """A keypoint has gone up by a height and down again by as much, a number of times [m]."""

    keypoint: str
    height: Positive
    count: Annotated[int, Field(ge=1)] = 1
    down_to: Positive | None = None
    """A swing counts when the keypoint is this close to its first height again, as when it strikes what it lay on."""


class Touching(Strict):
    """Two bodies press on each other."""

    body: str
    other: str
    """Both: rigid asset, or ``asset/link`` of an articulation."""

    @property
    def sensor(self) -> str:
        """Name of the contact sensor in the scene that feels it."""
        return f"touching_{self.body}_{self.other}".replace("/", "_")


Leaf = Near | OnTop | JointBeyond | JointWithin | Upright | Displaced | Swings | Touching


class Condition(Strict):
    """Exactly one condition; ``all`` and ``any`` compose."""

    near: Near | None = None
    on_top: OnTop | None = None
    joint_beyond: JointBeyond | None = None
    joint_within: JointWithin | None = None
    upright: Upright | None = None
    displaced: Displaced | None = None
    swings: Swings | None = None
    touching: Touching | None = None
    all: Annotated[list["Condition"], Field(min_length=1)] | None = None
    any: Annotated[list["Condition"], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _one(self) -> "Condition":
        named = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(named) != 1:
            allowed = ", ".join(type(self).model_fields)
            raise ValueError(f"give exactly one of {allowed}; got {', '.join(named) or 'none'}")
        return self

    @property
    def leaf(self) -> tuple[str, Leaf]:
        """Name and record of a plain condition."""
        return next((n, v) for n in type(self).model_fields if (v := getattr(self, n)) is not None)

    def leaves(self) -> list[tuple[str, Leaf]]:
        """Names and records of the plain conditions of the tree."""
        children = self.all or self.any
        if children is not None:
            return [leaf for child in children for leaf in child.leaves()]
        return [self.leaf]


class Arc(Strict):
    """A turn about a vertical axis, as of a door about its hinge."""

    center: tuple[float, float]
    """x and y of the axis in the env frame [m]."""
    angle_deg: float
    """Counterclockwise seen from above."""


class HandGoal(Strict):
    """Where the hand point goes: to keypoints plus an offset, by a displacement, or on an arc [m]."""

    to: str | Annotated[list[str], Field(min_length=1)] | None = None
    """A keypoint, or several: the middle of them."""
    offset: Vector3 = (0.0, 0.0, 0.0)
    by: Vector3 | None = None
    arc: Arc | None = None

    @property
    def keypoints(self) -> list[str]:
        """The keypoints of ``to``."""
        return [self.to] if isinstance(self.to, str) else self.to or []

    @model_validator(mode="after")
    def _one(self) -> "HandGoal":
        if sum(goal is not None for goal in (self.to, self.by, self.arc)) != 1:
            raise ValueError(
                "give either 'to: <keypoint>' or 'to: [<keypoint>, ...]' (with 'offset'), 'by: [dx, dy, dz]', "
                "or 'arc: {center: [x, y], angle_deg: ...}'"
            )
        return self


class Gather(Strict):
    """Two keypoints approach each other on the line between them, whatever the hand does."""

    keypoints: Annotated[list[str], Field(min_length=2, max_length=2)]
    distance: Annotated[float, Field(ge=0)]
    """How far they are apart at the end [m]."""


class OracleStage(Strict):
    """One stretch of the oracle's plan; without ``hand`` it is a dwell."""

    name: str
    waypoints: Annotated[int, Field(ge=1, le=100)]
    hand: HandGoal | None = None
    carry: list[str] = []
    """Keypoints that move with the hand."""
    gather: Gather | None = None
    """Keypoints that move towards each other."""


class TerminationSpec(Strict):
    """When an episode is given up (Scaffolds, Table 5)."""

    threshold: Positive
    """delta_init, tracking error [m]; annealed to half of it."""
    reduction: Literal["mean", "any"] = "mean"


class CpuTrainingSpec(Strict):
    """What ``presets=cpu`` changes for a task that its usual settings do not learn; ``presets=paper`` is without it."""

    minutes: Positive = 10.0
    """Training time at most in an experiment with ``--protocol quick`` [min]."""
    settings: dict[Annotated[str, Field(pattern=r"^(env|agent)\.\w+(\.\w+)+$")], float] = {}
    """Values of fields of env and agent (rsl_rl), by their Hydra paths."""


def _or_extends(schema: dict[str, Any]) -> None:
    """A task that extends another one has to have nothing else."""
    schema |= {"if": {"not": {"required": ["extends"]}}, "then": {"required": schema.pop("required")}}


class TaskSpec(Strict):
    """A task: one YAML file over a scene and a robot."""

    model_config = ConfigDict(json_schema_extra=_or_extends)

    name: str = ""
    extends: str | None = None
    """Task whose keys stand wherever this file has none of its own."""
    instruction: str
    scene: str
    robot: str
    episode_steps: Annotated[int, Field(ge=10, le=5000)] = 300
    """T, control steps of 1/60 s."""
    keypoints: Annotated[list[KeypointSpec], Field(min_length=1)]
    initial_state: InitialStateSpec
    grasp: GraspSpec
    contact: str | Annotated[list[str], Field(min_length=1)]
    """Body whose contacts with the fingertips are rewarded, or the bodies of an object that has several."""
    prompt: PromptSpec
    termination: TerminationSpec
    success: Condition
    oracle: Annotated[list[OracleStage], Field(min_length=1)]
    cpu: CpuTrainingSpec | None = None
    """What training on a CPU needs beyond the usual."""

    @property
    def keypoint_names(self) -> tuple[str, ...]:
        """Names in order."""
        return tuple(k.name for k in self.keypoints)

    @property
    def contact_sensors(self) -> dict[str, str]:
        """Body that each contact sensor of the scene is on, by the sensor's name."""
        bodies = [self.contact] if isinstance(self.contact, str) else self.contact
        return {f"contact_{number}" if number else "contact": body for number, body in enumerate(bodies)}

    @property
    def env_id(self) -> str:
        """Gymnasium id, e.g. ``ScaffoldLab-MoveApple-Allegro``."""
        camel = "".join(part.capitalize() for part in self.name.split("_"))
        return f"ScaffoldLab-{camel}-{self.robot.split('_')[0].capitalize()}"

    def waypoint_count(self) -> int:
        """n of the oracle's plan: one for the start and those of every stage."""
        return 1 + sum(stage.waypoints for stage in self.oracle)


class Composition(Strict):
    """A task with its scene and robot, checked against each other."""

    task: TaskSpec
    scene: SceneSpec
    robot: RobotSpec
    source: Path

    def usd(self, relative: str) -> Path:
        """Absolute path of an asset file."""
        return find_asset(relative, str(self.source))

    def digest(self) -> str:
        """Digest of everything that defines the task: its file, those of scene and robot, and their assets'."""
        digest = hashlib.sha256(self.model_dump_json(exclude={"source"}, exclude_none=True).encode())
        for usd in sorted({asset.usd for asset in self.scene.assets} | {self.robot.usd}):
            digest.update(self.usd(usd).read_bytes())
        return digest.hexdigest()

    def is_free(self, asset: AssetSpec) -> bool:
        """Whether the root of an asset can move: a rigid body, or an articulation that no joint ties to the world."""
        from scaffoldlab.usd.reader import is_fixed

        return asset.kind == "rigid" or (asset.kind == "articulation" and not is_fixed(self.usd(asset.usd)))


# --- loading --------------------------------------------------------------------------------------------------------


@cache
def load_task(name: str) -> Composition:
    """Loads a task with its scene and robot and checks them against each other.

    Args:
        name: Folder name below tasks/, e.g. ``move_apple``.

    Raises:
        ScaffoldError: With the file, the field, what was got and what is allowed.
    """
    path = find_named("task", name)
    task = _record(path, _task_data(path), TaskSpec, name)
    scene = read_yaml(find_named("scene", task.scene, f"{path}: scene"), SceneSpec, task.scene)
    robot = read_yaml(find_named("robot", task.robot, f"{path}: robot"), RobotSpec, task.robot)
    if robot.arm and scene.arm_base:
        robot = robot.model_copy(update={"arm": robot.arm.model_copy(update={"position": scene.arm_base})})
    composition = Composition(task=task, scene=scene, robot=robot, source=path)
    _check(composition)
    return composition


def read_yaml(path: Path, model: type, name: str) -> Any:
    """A YAML file as a record of that name.

    Raises:
        ScaffoldError: With the file, the field, what was got and what is allowed.
    """
    return _record(path, _mapping(path), model, name)


def _task_data(path: Path) -> dict[str, Any]:
    """The keys of a task's file, over those of the task that it extends."""
    data = _mapping(path)
    if not (name := data.get("extends")):
        return data
    base = _mapping(find_named("task", str(name), f"{path}: extends"))
    if base.get("extends"):
        raise ScaffoldError(
            f"{path}: extends: {name} extends {base['extends']} itself; allowed: a task that stands alone. Extend "
            f"{base['extends']}."
        )
    return base | data


def _mapping(path: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ScaffoldError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(data, dict):
        raise ScaffoldError(f"{path}: expected keys and values, got {type(data).__name__}.")
    return data


def _record(path: Path, data: dict[str, Any], model: type, name: str) -> Any:
    try:
        return model.model_validate({**data, "name": name})
    except ValidationError as error:
        raise ScaffoldError("\n".join(_explain(path, model, e) for e in error.errors())) from None


def _explain(path: Path, model: type[BaseModel], error: Any) -> str:
    """One line of a pydantic error: file, field, what was got, what is allowed, did-you-mean."""
    location = [str(part) for part in error["loc"]]
    field = ".".join(location) or "(top level)"
    if error["type"] == "extra_forbidden":
        allowed = _fields_at(model, location[:-1])
        return str(unknown_name("key", location[-1], allowed, f"{path}: {field}"))
    if error["type"] == "missing":
        return f"{path}: {field}: this key is required and missing."
    got = repr(error.get("input"))
    message = error["msg"].removeprefix("Value error, ")
    return f"{path}: {field}: {message}; got {got if len(got) < 120 else got[:117] + '...'}."


def _fields_at(model: type[BaseModel], location: list[str]) -> list[str]:
    """Names of the keys allowed at a place in a model, by its JSON schema."""
    schema = model.model_json_schema()
    node: dict[str, Any] = schema
    for part in location:
        node = _resolve(schema, node)
        if part.isdigit():
            node = node.get("items", {})
        else:
            node = node.get("properties", {}).get(part) or node.get("additionalProperties") or {}
    return list(_resolve(schema, node).get("properties", {}))


def _resolve(schema: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    for option in node.get("anyOf", []):
        if option.get("type") != "null":
            node = option
            break
    if "$ref" in node:
        node = schema["$defs"][node["$ref"].rsplit("/", 1)[-1]]
    return _resolve(schema, node) if "$ref" in node or "anyOf" in node else node


def _check(c: Composition) -> None:
    """Everything that one file cannot say alone."""
    from scaffoldlab.specs.feasible import check_success

    task, where = c.task, str(c.source)
    for asset in c.scene.assets:
        _check_asset(c, asset)
    c.usd(c.robot.usd)
    names = task.keypoint_names
    if len(set(names)) != len(names):
        raise ScaffoldError(f"{where}: keypoints: names must differ; got {list(names)}.")
    for i, keypoint in enumerate(task.keypoints):
        _check_body(c, keypoint.body, f"{where}: keypoints.{i}.body")
    for body in task.contact_sensors.values():
        _check_body(c, body, f"{where}: contact")
    for name in task.initial_state.objects:
        field = f"{where}: initial_state.objects.{name}"
        asset = c.scene.asset(name, field)
        if not c.is_free(asset):
            kind = "an articulation that is fixed to the world" if asset.kind == "articulation" else asset.kind
            raise ScaffoldError(f"{field}: {name!r} is {kind}, needs rigid or an articulation that is not fixed.")
    for name, joints in task.initial_state.joints.items():
        field = f"{where}: initial_state.joints.{name}"
        asset = c.scene.asset(name, field)
        if asset.kind != "articulation":
            raise ScaffoldError(f"{field}: {name!r} is {asset.kind}, needs articulation.")
        _check_joints(joints, asset, field)
        _check_positions(c, joints, asset, field)
    for name, leaf in task.success.leaves():
        _check_named(c, leaf, f"{where}: success.{name}")
    check_success(c, f"{where}: success")
    for stage in task.oracle:
        goal = stage.hand.keypoints if stage.hand else []
        for name in [*goal, *stage.carry, *(stage.gather.keypoints if stage.gather else [])]:
            if name not in names:
                raise unknown_name("keypoint", name, names, f"{where}: oracle.{stage.name}")
    for posture in ("open", "close"):
        for finger, joints in c.robot.fingers.items():
            values = getattr(task.grasp, posture).get(finger)
            if values is None or len(values) != len(joints):
                field = f"{where}: grasp.{posture}.{finger}"
                raise ScaffoldError(f"{field}: needs {len(joints)} angles [rad]; got {values}.")
        for finger in getattr(task.grasp, posture):
            if finger not in c.robot.fingers:
                raise unknown_name("finger", finger, c.robot.fingers, f"{where}: grasp.{posture}")


def _check_named(c: Composition, leaf: Leaf, where: str) -> None:
    """What the condition names exists."""
    points = [getattr(leaf, key) for key in ("keypoint", "to", "of") if hasattr(leaf, key)]
    bodies = {key: getattr(leaf, key) for key in ("body", "other") if hasattr(leaf, key)}
    for name in points:
        if name not in c.task.keypoint_names:
            raise unknown_name("keypoint", name, c.task.keypoint_names, where)
    for key, body in bodies.items():
        _check_body(c, body, f"{where}.{key}")
    if isinstance(leaf, JointBeyond | JointWithin):
        asset = c.scene.asset(leaf.asset, f"{where}.asset")
        _check_joints([leaf.joint], asset, f"{where}.joint")


def _check_asset(c: Composition, asset: AssetSpec) -> None:
    """The file is there, and has the joints that the scene names."""
    path = c.usd(asset.usd)
    if not asset.joints:
        return
    from scaffoldlab.usd.reader import joint_limits

    known = list(joint_limits(path))
    for joint in asset.joints:
        if joint not in known:
            where = f"{find_named('scene', c.task.scene)}: assets.{asset.name}.joints"
            raise unknown_name("joint", joint, known, where)


def _check_joints(names: Iterable[str], asset: AssetSpec, where: str) -> None:
    for name in names:
        if name not in asset.joints:
            raise unknown_name("joint", name, asset.joints, where)


def _check_positions(c: Composition, joints: dict[str, Range], asset: AssetSpec, where: str) -> None:
    """The joints can be where they are to start."""
    from scaffoldlab.usd.reader import joint_limits

    limits = joint_limits(c.usd(asset.usd))
    for joint, (low, high) in joints.items():
        lower, upper = limits[joint]
        if low < lower - 1e-6 or high > upper + 1e-6:
            raise ScaffoldError(
                f"{where}.{joint}: got {low:g} to {high:g}; allowed: within the limits of the joint, "
                f"{lower:.4g} to {upper:.4g}."
            )


def _check_body(c: Composition, body: str, where: str) -> None:
    """A body is an asset, or a link of an articulated one."""
    name, _, link = body.partition("/")
    asset = c.scene.asset(name, where)
    if asset.kind != "articulation":
        if link:
            raise ScaffoldError(f"{where}: {name!r} is {asset.kind} and has no links; got {body!r}, write {name!r}.")
        return
    from scaffoldlab.usd.reader import body_names

    links = body_names(c.usd(asset.usd))
    if link not in links:
        raise unknown_name("body", body, [f"{name}/{n}" for n in links], where)
