"""Writes a task over a scanned scene: pick up an object, carry it to a goal; it trains as it stands."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from scaffoldlab.errors import ScaffoldError, unknown_name
from scaffoldlab.files import write_atomic
from scaffoldlab.scan.scenes.files import BACKGROUND
from scaffoldlab.scan.scenes.placement import mesh_of
from scaffoldlab.scan.scenes.yaml_text import task_text
from scaffoldlab.specs.models import AssetSpec, KeypointSpec, SceneSpec, load_task, read_yaml
from scaffoldlab.specs.paths import find_asset, find_named, list_named

SHAKEN = 0.03
"""How far the object is moved at reset, each way [m]."""
ABOVE = 0.10
"""How high it is carried over the goal [m]."""
ONTO = re.compile(r"\b(on|onto|in|into|inside)\b", re.IGNORECASE)
"""Words that put a thing on another one rather than beside it."""
RESERVED = ("hand", "waypoint_num")
"""Names that a keypoint cannot have."""


@dataclass(frozen=True)
class Body:
    """An asset of the scene as it stands.

    Attributes:
        asset: The asset.
        low: Lower corner of its bounds in the env frame [m], shape (3,).
        high: Upper corner [m], shape (3,).
        middle_b: Middle of its bounds in its own frame [m], shape (3,).
        middle: The same point in the env frame [m], shape (3,).
    """

    asset: AssetSpec
    low: np.ndarray
    high: np.ndarray
    middle_b: np.ndarray
    middle: np.ndarray


def write_task(
    scene: str,
    *,
    instruction: str,
    moved: str | None = None,
    goal: str | None = None,
    name: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Writes ``tasks/NAME/task.yaml`` beside the assets/ folder that the scene is in, and checks it.

    Args:
        scene: Name of a scene, or its folder.
        instruction: The sentence.
        moved: Rigid asset to move; None: the one that the instruction names first, or the only one.
        goal: Asset or keypoint of the scene to move it to; None: what the instruction names besides, or a free place.
        name: Name of the task; None: ``move_OBJECT_SCENE``.
        overwrite: Whether a task that is there is replaced.

    Returns:
        The file.

    Raises:
        ScaffoldError: Unknown scene, object or goal; the task is there already; or the oracle cannot do it.
    """
    source = _scene_file(scene)
    spec: SceneSpec = read_yaml(source, SceneSpec, source.parent.name)
    bodies = {asset.name: _body(asset, source) for asset in spec.assets if asset.name != BACKGROUND}
    movable = [name for name, body in bodies.items() if body.asset.kind == "rigid"]
    thing = bodies[_moved(movable, moved, instruction, source)]
    target, rest = _goal(spec, bodies, thing, goal, instruction, source)
    name = name or f"move_{thing.asset.name}_{spec.name}"
    path = source.parents[3] / "tasks" / name / "task.yaml"
    _refuse_taken(path, name, overwrite)
    old = path.read_bytes() if path.exists() else None
    write_atomic(path, task_text(_task(spec, instruction, thing, target, rest)))
    try:
        check_task(name)
    except ScaffoldError:
        if old is None:
            path.unlink()
            path.parent.rmdir()
        else:
            write_atomic(path, old)
        raise
    return path


def check_task(name: str) -> None:
    """Loads a task and lets its oracle plan it in several initial states.

    Raises:
        ScaffoldError: The task is not valid, or a plan is not.
    """
    from scaffoldlab.planners.making import scripted_library

    load_task.cache_clear()
    library = scripted_library(load_task(name), count=8, seed=0)
    if failures := library.header["failures"]:
        raise ScaffoldError(
            f"task {name}: the oracle fails in {len(failures)} of 8 states: {next(iter(failures.values()))}"
        )


def _scene_file(scene: str) -> Path:
    """The scene's file, in a folder that tasks find it in."""
    folder = Path(scene)
    if (folder / "scene.yaml").is_file():
        found = list_named("scene").get(folder.resolve().name)
        if found is None or found.resolve() != (folder / "scene.yaml").resolve():
            raise ScaffoldError(
                f"{folder}: tasks do not find this scene. Set SCAFFOLDLAB_PATH={folder.resolve().parents[2]}, or move "
                "it to assets/scenes/ of the project."
            )
        return found
    return find_named("scene", scene)


def _body(asset: AssetSpec, source: Path) -> Body:
    from scaffoldlab.geometry import pose_apply

    mesh = mesh_of(find_asset(asset.usd, str(source)))
    middle = mesh.bounds.mean(0)
    points = pose_apply(asset.pose(), mesh.vertices)
    return Body(asset, points.min(0), points.max(0), middle, pose_apply(asset.pose(), middle))


def _moved(movable: Sequence[str], moved: str | None, instruction: str, source: Path) -> str:
    """Which rigid asset is moved."""
    if not movable:
        raise ScaffoldError(f"{source}: nothing in this scene can be moved: no asset is rigid.")
    if moved is not None:
        if moved not in movable:
            raise unknown_name("object", moved, movable, f"{source}: --object")
        return moved
    named = _named(movable, instruction)
    if not named and len(movable) > 1:
        raise ScaffoldError(
            f"new-task: the instruction {instruction!r} names none of {', '.join(movable)}. Say which with --object."
        )
    return (named or movable)[0]


def _goal(
    spec: SceneSpec, bodies: dict[str, Body], thing: Body, goal: str | None, instruction: str, source: Path
) -> tuple[KeypointSpec, np.ndarray]:
    """The keypoint to go to, and where the middle of the object is when it rests there, shape (3,) [m]."""
    others = {name: body for name, body in bodies.items() if body is not thing}
    places = {k.name: k for k in spec.keypoints if k.body == BACKGROUND}
    if goal is None:
        named = _named(others, instruction)
        beside = others[named[0]] if named and not ONTO.search(instruction) else None
        goal = (
            named[0] if named and not beside else _free_place(thing, others.values(), places.values(), beside, source)
        )
    half = thing.middle[2] - thing.low[2]
    if goal in others:
        body = others[goal]
        keypoint = KeypointSpec(name=_label(goal), body=goal, point=_rounded(body.middle_b))
        return keypoint, np.array((*body.middle[:2], body.high[2] + half))
    if goal not in places:
        raise unknown_name("goal", goal, [*others, *places], f"{source}: --goal")
    x, y, z = places[goal].point  # the background's frame is the env frame
    return places[goal], np.array((x, y, z + half))


def _free_place(
    thing: Body, others: Iterable[Body], places: Iterable[KeypointSpec], beside: Body | None, source: Path
) -> str:
    """The keypoint at rest that is nearest to a body, or about 25 cm from the object; not on top of anything."""

    def cost(place: KeypointSpec) -> float:
        point = np.array(place.point)
        away = np.linalg.norm(point[:2] - thing.middle[:2])
        wanted = abs(away - 0.25) if beside is None else np.linalg.norm(point[:2] - beside.middle[:2])
        room = np.linalg.norm((thing.high - thing.low)[:2]) / 2 + 0.02
        crowd = sum(max(0.0, room - _gap(body, point)) for body in [*others, thing])
        return float(wanted + 10 * crowd + 2 * abs(point[2] - thing.low[2]))

    if not places:
        raise ScaffoldError(f"{source}: there are no keypoints on what does not move. Say where to with --goal ASSET.")
    return min(places, key=cost).name


def _gap(body: Body, point: np.ndarray) -> float:
    """Distance of a point from a body's bounds over ground [m]."""
    return float(np.linalg.norm(np.maximum(0, np.maximum(body.low - point, point - body.high))[:2]))


def _task(spec: SceneSpec, instruction: str, thing: Body, target: KeypointSpec, rest: np.ndarray) -> dict[str, Any]:
    """The task as data."""
    base = yaml.safe_load(find_named("task", "move_apple").read_text())
    label, asset = _label(thing.asset.name), thing.asset
    if label == target.name:
        target = target.model_copy(update={"name": f"{target.name} goal"})
    x, y, _ = thing.middle
    top = float(thing.high[2])
    start = _at(target, spec)
    height = round(float(rest[2] - start[2]), 4)
    hand = {"x": _around(x - 0.05, 0.08), "y": _around(y, 0.08), "z": _around(top + 0.22, 0.06)}
    hand |= {key: base["initial_state"]["hand"][key] for key in ("pitch_deg", "yaw_deg")}
    position = asset.position
    shaken = {
        "x": _around(position[0], SHAKEN),
        "y": _around(position[1], SHAKEN),
        "z": round(float(position[2]), 4),
        "roll_deg": asset.roll_deg,
        "pitch_deg": asset.pitch_deg,
        "yaw_deg": _around(asset.yaw_deg, 11.5, 2),
    }
    return {
        "instruction": instruction,
        "scene": spec.name,
        "robot": base["robot"],
        "episode_steps": base["episode_steps"],
        "keypoints": [
            {"name": label, "body": asset.name, "point": list(_rounded(thing.middle_b))},
            {"name": target.name, "body": target.body, "point": list(target.point)},
        ],
        "initial_state": {"hand": hand, "objects": {asset.name: shaken}},
        "grasp": base["grasp"],
        "contact": asset.name,
        "prompt": {
            "activity": _activity(instruction),
            "steps": [
                f"First move the robot hand towards the {label}.",
                f"Then grasp the {label} and lift it up.",
                f"Finally move the {label} over the {target.name} and put it down.",
            ],
        },
        "termination": base["termination"],
        "success": {
            "all": [
                {"near": {"keypoint": label, "to": target.name, "distance": 0.08, "axes": "xy"}},
                {"on_top": {"keypoint": label, "of": target.name, "height": height, "tolerance": 0.03}},
            ]
        },
        "oracle": _oracle(label, target.name, over=top - float(thing.middle[2]) + 0.05, height=height),
    }


def _oracle(label: str, goal: str, *, over: float, height: float) -> list[dict[str, Any]]:
    """The stages of the oracle: to ``over`` above the object, and with it to ``height`` above the goal [m]."""
    held = {"carry": [label]}
    above_object, above_goal = [0, 0, round(over, 3)], [0, 0, round(height + ABOVE, 4)]
    return [
        {"name": "approach", "waypoints": 3, "hand": {"to": label, "offset": above_object}},
        {"name": "descend", "waypoints": 2, "hand": {"to": label}},
        {"name": "grasp", "waypoints": 3},
        {"name": "lift", "waypoints": 2, "hand": {"by": [0, 0, ABOVE]}, **held},
        {"name": "carry", "waypoints": 4, "hand": {"to": goal, "offset": above_goal}, **held},
        {"name": "lower", "waypoints": 2, "hand": {"to": goal, "offset": [0, 0, height]}, **held},
        {"name": "rest", "waypoints": 3},
    ]


def _at(target: KeypointSpec, spec: SceneSpec) -> np.ndarray:
    """Where the goal's keypoint is in the env frame [m], shape (3,)."""
    from scaffoldlab.geometry import pose_apply

    return pose_apply(spec.asset(target.body, spec.name).pose(), np.array(target.point))


def _named(names: Iterable[str], instruction: str) -> list[str]:
    """The names that a sentence mentions, in the order in which it does."""
    text = " ".join(re.findall(r"\w+", instruction.lower()))
    places = {name: re.search(rf"\b{re.escape(_label(name).lower())}s?\b", text) for name in names}
    starts = {name: match.start() for name, match in places.items() if match}
    return sorted(starts, key=lambda name: starts[name])


def _label(name: str) -> str:
    """The name of an asset as a keypoint's: words."""
    label = name.replace("_", " ")
    return f"{label} object" if label in RESERVED else label


def _activity(instruction: str) -> str:
    """The instruction as the end of "You are controlling a robot hand to ..."."""
    sentence = instruction.strip().rstrip(".!")
    return sentence[:1].lower() + sentence[1:]


def _around(middle: float, half: float, digits: int = 3) -> list[float]:
    return [round(float(middle - half), digits), round(float(middle + half), digits)]


def _rounded(vector: np.ndarray) -> tuple[float, float, float]:
    x, y, z = (round(float(value), 4) + 0.0 for value in vector)
    return x, y, z


def _refuse_taken(path: Path, name: str, overwrite: bool) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ScaffoldError(f"new-task: the name is {name!r}; allowed: small letters, digits and underscores.")
    known = list_named("task").get(name)
    if known is not None and (known.resolve() != path.resolve() or not overwrite):
        raise ScaffoldError(f"{known}: there is a task {name!r} already. Choose another --name, or use --overwrite.")
