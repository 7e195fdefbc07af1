"""Task, scene and robot files: what holds for every registered task, and what a wrong file is told."""

import json
from functools import cache

import jsonschema
import numpy as np
import pytest
import yaml

from conftest import ROOT, write_yaml
from scaffoldlab.cli import main
from scaffoldlab.cli.common import task_name
from scaffoldlab.errors import ScaffoldError
from scaffoldlab.geometry import pose_apply
from scaffoldlab.planners.base import Waypoints
from scaffoldlab.planners.making import make_request, plan_limits
from scaffoldlab.planners.scripted import oracle_waypoints
from scaffoldlab.plans.validation import validate_waypoints
from scaffoldlab.specs.bodies import body_names, body_surfaces
from scaffoldlab.specs.initial_state import body_poses, sample_initial_state
from scaffoldlab.specs.models import RobotSpec, SceneSpec, TaskSpec, load_task
from scaffoldlab.specs.paths import list_named
from scaffoldlab.usd.reader import joint_limits

TASKS = sorted(path.parent.name for path in (ROOT / "tasks").glob("*/task.yaml"))
FILES = [
    *((TaskSpec, path) for path in sorted((ROOT / "tasks").glob("*/task.yaml"))),
    *((SceneSpec, path) for path in sorted((ROOT / "assets/scenes").glob("*/scene.yaml"))),
    *((RobotSpec, path) for path in sorted((ROOT / "assets/robots").glob("*/robot.yaml"))),
]


@pytest.fixture(params=TASKS)
def composition(request):
    return load_task(request.param)


def load_error(name: str) -> str:
    """What loading a task says is wrong."""
    with pytest.raises(ScaffoldError) as caught:
        load_task(name)
    return str(caught.value)


# --- every registered task ------------------------------------------------------------------------------------------


def test_committed_tasks_are_the_registered_ones():
    assert {"move_apple", "open_drawer"} <= set(TASKS)
    assert list(list_named("task")) == TASKS


def test_env_id_is_made_of_task_and_robot():
    ids = {name: load_task(name).task.env_id for name in ("move_apple", "open_drawer")}
    assert ids == {"move_apple": "ScaffoldLab-MoveApple-Allegro", "open_drawer": "ScaffoldLab-OpenDrawer-Allegro"}
    assert len({load_task(name).task.env_id for name in TASKS}) == len(TASKS)


def test_env_id_and_name_both_lead_to_the_task(composition):
    assert task_name(composition.task.env_id) == task_name(composition.task.name) == composition.task.name


def test_oracle_has_the_twenty_waypoints_of_the_paper(composition):
    request = make_request(composition, seed=0, index=0)
    keypoints_e, hand_e = oracle_waypoints(composition.task.oracle, request)
    assert len(keypoints_e) == len(hand_e) == request.waypoint_count == composition.task.waypoint_count() == 20


def test_oracle_dwells_at_the_grasp_and_at_the_end(composition):
    """The hand lags its target by 0.2 s: without a dwell it closes too early and ends short of the goal."""
    _, hand_e = oracle_waypoints(composition.task.oracle, make_request(composition, seed=0, index=0))
    still = np.linalg.norm(np.diff(hand_e, axis=0), axis=-1) < 1e-12
    names = [stage.name for stage in composition.task.oracle]
    before = 1 + sum(stage.waypoints for stage in composition.task.oracle[: names.index("grasp")])
    waypoint_s = composition.task.episode_steps / 60 / (len(hand_e) - 1)
    assert still[before - 1 : before + 2].all() and 3 * waypoint_s > 0.2
    assert still[-2:].all() and 2 * waypoint_s > 0.2


def test_keypoints_sit_on_bodies_of_the_scene_and_near_their_surface(composition):
    surfaces = body_surfaces(composition)
    assert set(surfaces) == set(body_names(composition))
    for keypoint in composition.task.keypoints:
        nearest = np.linalg.norm(surfaces[keypoint.body] - keypoint.point, axis=-1).min()
        assert nearest < 0.05, f"{keypoint.name} is {nearest:.3f} m from {keypoint.body}"


def test_initial_states_start_in_the_workspace(composition):
    lower, upper = np.array(composition.scene.workspace)
    for index in range(20):
        request = make_request(composition, seed=5, index=index)
        assert (lower <= request.hand_e).all() and (request.hand_e <= upper).all()
        assert np.linalg.norm(request.keypoints_e - request.hand_e, axis=-1).min() > 0.05, "the hand starts in a body"


def test_fifty_seeds_of_the_oracle_are_plans(composition):
    limits = plan_limits(composition)
    for seed in range(50):
        request = make_request(composition, seed=seed, index=seed)
        keypoints_e, hand_e = oracle_waypoints(composition.task.oracle, request)
        answer = Waypoints(keypoints_e=keypoints_e, hand_e=hand_e, located_e=request.keypoints_e)
        assert validate_waypoints(request, answer, limits) == []


def test_postures_are_within_the_limits_of_the_joints(composition):
    from pxr import Usd, UsdPhysics

    stage = Usd.Stage.Open(str(composition.usd(composition.robot.usd)))
    joints = {p.GetName(): UsdPhysics.RevoluteJoint(p) for p in stage.Traverse() if p.IsA(UsdPhysics.RevoluteJoint)}
    for posture in (composition.task.grasp.open, composition.task.grasp.close):
        for finger, names in composition.robot.fingers.items():
            for name, angle in zip(names, np.degrees(posture[finger]), strict=True):
                low, high = joints[name].GetLowerLimitAttr().Get(), joints[name].GetUpperLimitAttr().Get()
                assert low - 0.01 <= angle <= high + 0.01, f"{name}: {angle:.1f} deg is outside {low:.1f}..{high:.1f}"


def test_success_does_not_hold_at_the_start_and_is_reached_by_the_oracle(composition):
    """A plan has keypoints only: what reads a body or a joint is checked by how its keypoints move."""
    condition, surfaces = composition.task.success, body_surfaces(composition)
    for index in range(8):
        request = make_request(composition, seed=9, index=index)
        keypoints_e, _ = oracle_waypoints(composition.task.oracle, request)
        track = [dict(zip(request.keypoint_names, row, strict=True)) for row in keypoints_e]
        state = sample_initial_state(composition, seed=9, index=index)
        poses = body_poses(composition, state)
        clouds = {k.body: (k.name, pose_apply(poses[k.body], surfaces[k.body])) for k in composition.task.keypoints}
        joint = joint_reader(composition, state)
        assert not holds(condition, track[:1], clouds, joint)
        assert any(holds(condition, track[: n + 1], clouds, joint) for n in range(1, len(track)))


def joint_reader(composition, state):
    """Tells where a joint must be for the keypoints to be where they are; it has to be possible within 6 mm.

    Of an asset that nothing holds, only the distances between its keypoints tell.
    """

    @cache
    def table(asset_name, joint):
        """Joint positions, and the keypoints of the asset at each of them."""
        asset = composition.scene.asset(asset_name, "")
        column = (7 if composition.is_free(asset) else 0) + list(asset.joints).index(joint)
        positions, rows = np.linspace(*joint_limits(composition.usd(asset.usd))[joint], 120), []
        for position in positions:
            moved = state[asset_name].copy()
            moved[column] = position
            poses = body_poses(composition, state | {asset_name: moved})
            rows.append([pose_apply(poses[k.body], np.array(k.point)) for k in on(asset_name)])
        return positions, np.array(rows)

    def on(asset_name):
        return [k for k in composition.task.keypoints if k.body.startswith(f"{asset_name}/")]

    def position(leaf, now) -> float:
        positions, there = table(leaf.asset, leaf.joint)
        wanted = np.array([now[k.name] for k in on(leaf.asset)])
        if composition.is_free(composition.scene.asset(leaf.asset, "")):
            there, wanted = (np.linalg.norm(p[..., :1, :] - p[..., 1:, :], axis=-1) for p in (there, wanted))
        errors = np.abs(there - wanted).reshape(len(positions), -1).max(1)
        assert errors.min() < 0.006
        return float(positions[errors.argmin()])

    return position


def holds(condition, track, clouds, joint) -> bool:
    """The documented meaning of the conditions, on keypoint positions by name, from the start to now."""
    start, now = track[0], track[-1]
    if condition.all:
        return all(holds(c, track, clouds, joint) for c in condition.all)
    if condition.any:
        return any(holds(c, track, clouds, joint) for c in condition.any)
    name, leaf = condition.leaf
    if name == "near":
        return bool(np.linalg.norm((now[leaf.keypoint] - now[leaf.to])[: len(leaf.axes)]) < leaf.distance)
    if name == "on_top":
        return bool(abs(now[leaf.keypoint][2] - now[leaf.of][2] - leaf.height) < leaf.tolerance)
    if name == "upright":
        return True  # plans say nothing about how things are turned
    if name == "displaced":
        away = np.array([at[leaf.keypoint] - start[leaf.keypoint] for at in track])
        kept = leaf.height_tolerance is None or np.abs(away[:, 2]).max() < leaf.height_tolerance
        return bool(np.linalg.norm(away[-1, :2]) > leaf.distance and kept)
    if name == "swings":
        z = [at[leaf.keypoint][2] for at in track]
        z = [height for height, before in zip(z, [None, *z], strict=False) if height != before]
        turns = [b for a, b, c in zip(z, z[1:], z[2:], strict=False) if (b - a) * (c - b) < 0]
        legs = np.abs(np.diff([z[0], *turns, z[-1]]))
        return len(legs) >= 2 * leaf.count and bool((legs >= leaf.height).all())
    if name == "touching":
        shifted = [
            points[::20] + now[keypoint] - start[keypoint]
            for keypoint, points in (clouds[leaf.body], clouds[leaf.other])
        ]
        return bool(np.linalg.norm(shifted[0][:, None] - shifted[1], axis=-1).min() < 0.01)
    position = abs(joint(leaf, now))
    return position > leaf.distance if name == "joint_beyond" else position < leaf.distance


def test_every_movable_thing_has_an_initial_state(composition):
    state = sample_initial_state(composition, seed=0, index=0)
    movable = {asset.name for asset in composition.scene.assets if asset.kind != "static"}
    assert set(state) == movable | {"hand"}
    assert set(body_poses(composition, state)) == set(body_names(composition))


# --- a new task is one file -----------------------------------------------------------------------------------------


def test_new_task_over_an_existing_scene_is_one_file(write_task):
    write_task("lift_apple", lambda data: data.update(instruction="Lift the apple."))
    assert "lift_apple" in list_named("task")
    task = load_task("lift_apple").task
    assert (task.name, task.instruction, task.env_id) == (
        "lift_apple",
        "Lift the apple.",
        "ScaffoldLab-LiftApple-Allegro",
    )


# --- a task that extends another one --------------------------------------------------------------------------------


def write_extending(extra_root, name="mine", **data):
    path = extra_root / "tasks" / name / "task.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(yaml.safe_dump(data))


def test_extending_task_has_the_keys_of_the_other_where_it_has_none(extra_root):
    write_extending(extra_root, extends="move_apple", episode_steps=100)
    mine, apple = load_task("mine").task, load_task("move_apple").task
    assert (mine.name, mine.episode_steps, mine.env_id) == ("mine", 100, "ScaffoldLab-Mine-Allegro")
    own = {"name", "extends", "episode_steps"}
    assert mine.model_dump(exclude=own) == apple.model_dump(exclude=own)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"extends": "move_aple"}, ["extends: unknown task 'move_aple'", "Did you mean 'move_apple'"]),
        ({"extends": "move_apple_arm"}, ["move_apple_arm extends move_apple itself", "Extend move_apple."]),
        ({"extends": "move_apple", "sucess": {}}, ["unknown key 'sucess'", "Did you mean 'success'"]),
        ({"extends": "move_apple", "success": {"near": {}}}, ["success"]),
        ({"instruction": "Lift."}, ["keypoints: this key is required and missing"]),
    ],
)
def test_extending_task_that_is_wrong_is_told(extra_root, data, words):
    write_extending(extra_root, **data)
    error = load_error("mine")
    assert all(word in error for word in words), error


def test_arm_stands_where_the_scene_has_it(write_task, write_scene):
    write_scene("far", lambda data: data.update(arm_base=[-0.9, 0.1, 0.7]))
    write_task("mine", lambda data: data.update(robot="iiwa_allegro", scene="far"))
    assert load_task("mine").robot.arm.position == (-0.9, 0.1, 0.7)
    assert load_task("move_apple_arm").robot.arm.position == (-0.85, 0, 0.75)


def test_project_goes_before_the_folders_of_the_path(write_task):
    write_task("move_apple", lambda data: data.update(instruction="Something else."))
    assert load_task("move_apple").task.instruction == "Move the apple to the cutting board."


def test_numbers_and_ranges_both_describe_a_range(write_task):
    def change(data):
        data["initial_state"]["hand"]["x"] = 0.01
        data["initial_state"]["hand"]["y"] = [0.1, 0.2]

    write_task("ranges", change)
    hand = load_task("ranges").task.initial_state.hand
    assert (hand.x, hand.y, hand.roll_deg) == ((0.01, 0.01), (0.1, 0.2), (0.0, 0.0))


# --- bad input ------------------------------------------------------------------------------------------------------


def test_unknown_task_names_the_nearest_and_the_allowed():
    assert load_error("move_aple") == (
        "unknown task 'move_aple'. Did you mean 'move_apple'? Allowed: " + ", ".join(TASKS) + "."
    )


def set_at(*path):
    """A change that sets ``data[path[0]]...[path[-2]] = path[-1]``."""
    *keys, last, value = path

    def change(data):
        for key in keys:
            data = data[key]
        data[last] = value

    return change


BAD_TASKS = {
    "unknown key": (
        set_at("instructon", "x"),
        "instructon",
        "Did you mean 'instruction'?",
        "Allowed: ",
        "episode_steps",
    ),
    "unknown key in a list": (
        set_at("success", "all", 0, "nearr", {}),
        "success.all.0.nearr",
        "unknown key 'nearr'",
        "Did you mean 'near'?",
        "joint_beyond",
    ),
    "unknown key of a named object": (
        set_at("initial_state", "objects", "apple", "yaw", 0),
        "initial_state.objects.apple.yaw",
        "'yaw'",
        "Did you mean 'yaw_deg'?",
    ),
    "missing key": (lambda data: data.pop("instruction"), "instruction", "required and missing"),
    "negative threshold": (set_at("termination", "threshold", -0.1), "termination.threshold", "greater than 0", "-0.1"),
    "threshold that is text": (set_at("termination", "threshold", "10 cm"), "termination.threshold", "'10 cm'"),
    "threshold that is not finite": (
        set_at("termination", "threshold", float("nan")),
        "termination.threshold",
        "nan",
    ),
    "range with low above high": (
        set_at("initial_state", "objects", "apple", "x", [0.05, -0.05]),
        "initial_state.objects.apple.x",
        "low <= high",
        "[0.05, -0.05]",
    ),
    "range of three": (set_at("initial_state", "hand", "x", [0, 1, 2]), "initial_state.hand.x", "[0, 1, 2]"),
    "reduction outside its set": (
        set_at("termination", "reduction", "max"),
        "termination.reduction",
        "'mean' or 'any'",
        "'max'",
    ),
    "steps below the least": (set_at("episode_steps", 3), "episode_steps", "greater than or equal to 10", "3"),
    "no keypoints": (set_at("keypoints", []), "keypoints", "at least 1", "[]"),
    "two keypoints of one name": (
        lambda data: data["keypoints"].append(data["keypoints"][0]),
        "keypoints: names must differ",
        "'apple', 'cutting board', 'apple'",
    ),
    "two conditions at once": (
        set_at("success", "near", {"keypoint": "apple", "to": "cutting board", "distance": 0.1}),
        "success",
        "exactly one of near, on_top, joint_beyond, joint_within, upright, displaced, swings, touching, all, any",
        "got near, all",
    ),
    "condition of nothing": (set_at("success", {"all": []}), "success.all", "at least 1", "[]"),
    "goal of two kinds": (
        set_at("oracle", 0, "hand", {"to": "apple", "by": [0, 0, 1]}),
        "oracle.0.hand",
        "either 'to: <keypoint>'",
    ),
    "unknown scene": (
        set_at("scene", "kitchen_countre"),
        "scene",
        "'kitchen_countre'",
        "Did you mean 'kitchen_counter'?",
    ),
    "unknown robot": (
        set_at("robot", "allegro_floatin"),
        "robot",
        "'allegro_floatin'",
        "Did you mean 'allegro_floating'?",
    ),
    "keypoint on a body that does not exist": (
        set_at("keypoints", 0, "body", "aple"),
        "keypoints.0.body",
        "unknown asset 'aple'",
        "Did you mean 'apple'?",
        "apple, counter, cutting_board",
    ),
    "keypoint on a link of a thing without links": (
        set_at("keypoints", 0, "body", "apple/stem"),
        "keypoints.0.body",
        "'apple' is rigid and has no links",
        "'apple/stem'",
        "write 'apple'",
    ),
    "contact with a body that does not exist": (
        set_at("contact", "cutting board"),
        "contact",
        "Did you mean 'cutting_board'?",
    ),
    "unknown keypoint in success": (
        set_at("success", "all", 1, "on_top", "of", "board"),
        "success",
        "unknown keypoint 'board'",
        "Allowed: apple, cutting board",
    ),
    "unknown keypoint of a swing": (
        set_at("success", {"swings": {"keypoint": "aple", "height": 0.05}}),
        "success.swings",
        "Did you mean 'apple'?",
    ),
    "swing of a thing that cannot move": (
        set_at("success", {"swings": {"keypoint": "cutting board", "height": 0.05}}),
        "success.swings: can never hold: 'cutting_board' cannot move",
        "allowed: a body that moves",
    ),
    "no swings": (
        set_at("success", {"swings": {"keypoint": "apple", "height": 0.05, "count": 0}}),
        "success.swings.count",
        "greater than or equal to 1",
    ),
    "way that is longer than the workspace": (
        set_at("success", {"displaced": {"keypoint": "apple", "distance": 2}}),
        "success.displaced: can never hold: got a distance of 2 m",
        "allowed: less than 1.58 m",  # of 0.9 m by 1.3 m
    ),
    "keypoints that stay the same distance apart": (
        set_at("success", "all", 0, "near", "keypoint", "cutting board"),
        "success.near: can never hold",
        "stay the same distance apart",
    ),
    "upright thing that cannot move": (
        set_at("success", {"upright": {"body": "cutting_board"}}),
        "success.upright: can never hold: 'cutting_board' cannot move",
    ),
    "axis outside its set": (
        set_at("success", {"upright": {"body": "apple", "axis": "up"}}),
        "success.upright.axis",
        "'x', 'y' or 'z'",
    ),
    "touch of a thing that cannot move": (
        set_at("success", {"touching": {"body": "apple", "other": "counter"}}),
        "success.touching: can never hold: 'counter' is static",
    ),
    "touch of a thing with itself": (
        set_at("success", {"touching": {"body": "apple", "other": "apple"}}),
        "success.touching: can never hold: got 'apple' twice",
        "allowed: two bodies",
    ),
    "unknown keypoint in the oracle": (
        set_at("oracle", 0, "hand", "to", "appel"),
        "oracle.approach",
        "unknown keypoint 'appel'",
        "Did you mean 'apple'?",
    ),
    "carried keypoint that does not exist": (
        set_at("oracle", 3, "carry", ["aple"]),
        "oracle.lift",
        "unknown keypoint 'aple'",
    ),
    "three angles for four joints": (
        set_at("grasp", "close", "ring", [0, 1, 1]),
        "grasp.close.ring",
        "needs 4 angles [rad]",
        "[0.0, 1.0, 1.0]",
    ),
    "finger without angles": (
        lambda data: data["grasp"]["open"].pop("thumb"),
        "grasp.open.thumb",
        "needs 4 angles",
        "None",
    ),
    "finger that the hand does not have": (
        set_at("grasp", "open", "pinky", [0, 0, 0, 0]),
        "grasp.open",
        "unknown finger 'pinky'",
        "index, middle, ring, thumb",
    ),
    "initial state of a thing that is not there": (
        set_at("initial_state", "objects", "pear", {"x": 0, "y": 0, "z": 0}),
        "initial_state.objects.pear",
        "unknown asset 'pear'",
    ),
    "initial state of a thing that cannot move": (
        set_at("initial_state", "objects", "counter", {"x": 0, "y": 0, "z": 0}),
        "initial_state.objects.counter",
        "static, needs rigid",
    ),
    "goal of no kind": (set_at("oracle", 0, "hand", {"offset": [0, 0, 1]}), "oracle.0.hand", "or 'arc: {center:"),
    "gathered keypoint that does not exist": (
        set_at("oracle", 2, "gather", {"keypoints": ["apple", "aple"], "distance": 0.1}),
        "oracle.grasp",
        "Did you mean 'apple'?",
    ),
    "one gathered keypoint": (
        set_at("oracle", 2, "gather", {"keypoints": ["apple"], "distance": 0.1}),
        "oracle.2.gather.keypoints",
        "at least 2",
    ),
    "goal in the middle of keypoints that do not exist": (
        set_at("oracle", 0, "hand", {"to": ["apple", "bord"]}),
        "oracle.approach",
        "unknown keypoint 'bord'",
    ),
}


@pytest.mark.parametrize("case", BAD_TASKS)
def test_wrong_task_file_is_told_file_field_value_and_what_is_allowed(write_task, case):
    change, field, *words = BAD_TASKS[case]
    path = write_task("broken", change)
    message = load_error("broken")
    assert message.startswith(f"{path}: "), message
    for word in (field, *words):
        assert word in message


BAD_DRAWERS = {
    "link that does not exist": (
        set_at("keypoints", 0, "body", "cabinet/drawer_tpo"),
        "keypoints.0.body",
        "'cabinet/drawer_tpo'",
        "Did you mean 'cabinet/drawer_top'?",
        "cabinet/frame",
    ),
    "articulation without a link": (set_at("keypoints", 0, "body", "cabinet"), "keypoints.0.body", "cabinet/frame"),
    "joint of success that does not exist": (
        set_at("success", "joint_beyond", "joint", "drawer_top"),
        "success.joint_beyond.joint",
        "Did you mean 'drawer_top_joint'?",
    ),
    "joint of success beyond its limit": (
        set_at("success", "joint_beyond", "distance", 0.5),
        "success.joint_beyond: can never hold: got a distance of 0.5",
        "'drawer_top_joint' moves from -0.4 to 0",
        "allowed: less than 0.4",
    ),
    "joint of a closing that does not exist": (
        set_at("success", {"joint_within": {"asset": "cabinet", "joint": "drawer_top", "distance": 0.1}}),
        "success.joint_within.joint",
        "Did you mean 'drawer_top_joint'?",
    ),
    "asset of a closing that does not exist": (
        set_at("success", {"joint_within": {"asset": "cabinett", "joint": "drawer_top_joint", "distance": 0.1}}),
        "success.joint_within.asset",
        "Did you mean 'cabinet'?",
    ),
    "upright link that does not exist": (
        set_at("success", {"upright": {"body": "cabinet/drawer_topp"}}),
        "success.upright.body",
        "Did you mean 'cabinet/drawer_top'?",
    ),
    "negative distance": (
        set_at("success", "joint_beyond", "distance", -0.2),
        "success.joint_beyond.distance",
        "greater than 0",
    ),
    "initial position of a joint that does not exist": (
        set_at("initial_state", "joints", "cabinet", {"drawer_topp_joint": 0.1}),
        "initial_state.joints.cabinet",
        "unknown joint 'drawer_topp_joint'",
        "Did you mean 'drawer_top_joint'?",
    ),
    "initial position beyond the joint's limits": (
        set_at("initial_state", "joints", "cabinet", {"drawer_top_joint": [-0.1, 0.2]}),
        "initial_state.joints.cabinet.drawer_top_joint",
        "got -0.1 to 0.2",
        "allowed: within the limits of the joint, -0.4 to 0",
    ),
    "root of a thing that is fixed to the world": (
        set_at("initial_state", "objects", {"cabinet": {"x": 0, "y": 0, "z": 0}}),
        "initial_state.objects.cabinet",
        "an articulation that is fixed to the world, needs rigid or an articulation that is not fixed",
    ),
}


@pytest.mark.parametrize("case", BAD_DRAWERS)
def test_wrong_task_over_an_articulation_is_told_the_links_and_joints(write_task, case):
    change, field, *words = BAD_DRAWERS[case]
    path = write_task("broken", change, base="open_drawer")
    message = load_error("broken")
    assert message.startswith(f"{path}: {field}"), message
    for word in words:
        assert word in message


BAD_PLIERS = {
    "joint that does not exist": (
        set_at("initial_state", "joints", "pliers", {"hing": 0.5}),
        "initial_state.joints.pliers",
        "unknown joint 'hing'",
        "Did you mean 'hinge'?",
    ),
    "joint beyond its limits": (
        set_at("initial_state", "joints", "pliers", "hinge", [0.5, 1.5]),
        "initial_state.joints.pliers.hinge",
        "got 0.5 to 1.5",
        "0 to 0.8727",  # 50 deg
    ),
    "half that does not exist": (
        set_at("keypoints", 0, "body", "pliers/lef"),
        "keypoints.0.body",
        "Did you mean 'pliers/left'?",
        "pliers/right",
    ),
    "contact with a half that does not exist": (
        set_at("contact", ["pliers/left", "pliers/rihgt"]),
        "contact",
        "Did you mean 'pliers/right'?",
    ),
    "no half": (set_at("contact", "pliers"), "contact", "Allowed: pliers/left, pliers/right"),
    "joint of success that does not exist": (
        set_at("success", "joint_within", "joint", "pivot"),
        "success.joint_within.joint",
        "Allowed: hinge",
    ),
}


@pytest.mark.parametrize("case", BAD_PLIERS)
def test_wrong_task_over_a_free_articulation_is_told_the_halves_and_joints(write_task, case):
    change, field, *words = BAD_PLIERS[case]
    path = write_task("broken", change, base="close_pliers")
    message = load_error("broken")
    assert message.startswith(f"{path}: {field}"), message
    for word in words:
        assert word in message


def joint(kind, distance, name="door_joint"):
    return {kind: {"asset": "fridge", "joint": name, "distance": distance}}


FRAME = {"name": "frame", "body": "fridge/body", "point": [0.0, 0.0, 0.9]}
IMPOSSIBLE = {
    "swing beyond the workspace": (
        "move_apple",
        {"swings": {"keypoint": "apple", "height": 5}},
        "swings: can never hold: got a height of 5 m, and the scene's workspace lets 'apple' go up by 0.75 m",
        "allowed: up to 0.75 m",
    ),
    "height beyond the workspace": (
        "move_apple",
        {"on_top": {"keypoint": "apple", "of": "cutting board", "height": 0.8}},
        "on_top: can never hold: got a height of 0.8 m of 'apple' above 'cutting board'",
        "between -0.066 and 0.684 m",  # the board's top is at 0.916 m, the workspace from 0.85 to 1.6 m
    ),
    "height beyond the size of the body": (
        "hammer",
        {"on_top": {"keypoint": "head", "of": "handle", "height": 0.12}},
        "on_top: can never hold: got a height of 0.12 m of 'head' above 'handle', and one rigid body",
        "allowed: -0.084 to 0.084 m, give or take the tolerance of 0.02 m",  # 8.45 cm apart
    ),
    "height of a handle that turns about the vertical": (
        "open_fridge",
        {"on_top": {"keypoint": "handle", "of": "frame", "height": 0.2}},
        "on_top: can never hold: got a height of 0.2 m",
        "between 0.050 and 0.050 m",  # 0.95 m and 0.90 m above the floor
    ),
    "axis that stays level": (
        "open_fridge",
        {"upright": {"body": "fridge/door", "axis": "x", "angle_deg": 90}},
        "upright: can never hold: got an angle_deg of 90, and its joint keeps axis x of 'fridge/door' at least 90 deg",
        "allowed: another axis, or a body that turns over",
    ),
    "link that no joint moves": (
        "open_fridge",
        {"upright": {"body": "fridge/body"}},
        "upright: can never hold: 'fridge/body' cannot move",
    ),
    "swing about the vertical": (
        "open_fridge",
        {"swings": {"keypoint": "handle", "height": 0.05}},
        "swings: can never hold: got a height of 0.05 m, and its joint lets 'handle' go up by 0.00 m",
        "allowed: a keypoint that goes up and down",
    ),
    "way beyond the drawer's": (
        "open_drawer",
        {"displaced": {"keypoint": "handle", "distance": 0.45}},
        "displaced: can never hold: got a distance of 0.45 m, and its joint lets 'handle' move 0.40 m over ground",
    ),
    "joint at two places": (
        "open_fridge",
        {"all": [joint("joint_beyond", 1.0), {"all": [joint("joint_within", 0.5)]}]},
        "all: can never hold: 'door_joint' of 'fridge' would have to be beyond 1 and within 0.5 of zero at once",
        "allowed: a distance of joint_beyond that is less than that of joint_within",
    ),
    "joint at two places in an alternative": (
        "open_fridge",
        {"any": [joint("joint_beyond", 1.0), {"all": [joint("joint_within", 0.5), joint("joint_beyond", 0.5)]}]},
        "all: can never hold: 'door_joint'",
    ),
}


def with_success(success):
    def change(data):
        data["success"] = success
        data["keypoints"] += [FRAME] * (data["scene"] == "kitchen_fridge")

    return change


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_success_that_can_never_hold_is_refused_with_what_is_allowed(write_task, case):
    base, success, start, *words = IMPOSSIBLE[case]
    path = write_task("broken", with_success(success), base=base)
    message = load_error("broken")
    assert message.startswith(f"{path}: success.{start}"), message
    for word in words:
        assert word in message


def test_point_outside_the_workspace_is_never_near_to_what_stays_in_it(write_task):
    def change(data):
        data["keypoints"][1]["point"] = [0.0, -1.0, 0.008]  # the board's y is -0.2 m, the workspace ends at -0.65 m
        data["success"] = {"near": {"keypoint": "apple", "to": "cutting board", "distance": 0.5, "axes": "xy"}}

    write_task("broken", change)
    message = load_error("broken")
    assert "success.near: can never hold: got a distance of 0.5 m, and 'cutting board' is 0.55 m outside" in message
    assert "in which 'apple' stays; allowed: more than 0.55 m" in message


@pytest.mark.parametrize(
    ("base", "success"),
    [
        ("move_apple", {"swings": {"keypoint": "apple", "height": 0.7}}),
        ("move_apple", {"on_top": {"keypoint": "apple", "of": "cutting board", "height": 0.65}}),
        ("hammer", {"on_top": {"keypoint": "head", "of": "handle", "height": -0.1}}),
        ("open_fridge", {"on_top": {"keypoint": "handle", "of": "frame", "height": 0.06}}),
        ("open_fridge", {"displaced": {"keypoint": "handle", "distance": 0.6}}),
        ("open_drawer", {"displaced": {"keypoint": "handle", "distance": 0.38}}),
        ("close_pliers", {"upright": {"body": "pliers/left", "axis": "x"}}),
        ("open_fridge", {"all": [joint("joint_beyond", 0.5), joint("joint_within", 1.0)]}),
        ("open_fridge", {"any": [joint("joint_beyond", 1.0), joint("joint_within", 0.5)]}),
    ],
)
def test_success_that_can_hold_is_let_through(write_task, base, success):
    write_task("bold", with_success(success), base=base)
    load_task("bold")


def test_door_with_a_level_hinge_turns_upright_and_swings(write_task, write_scene):
    """The fridge on its side: the same conditions hold that an upright one can never fulfil."""
    write_scene("fallen", set_at("assets", 0, "roll_deg", -90), base="kitchen_fridge")
    for name in ("axis that stays level", "swing about the vertical"):
        _, success, *_ = IMPOSSIBLE[name]
        write_task("fallen", lambda data, s=success: data.update(scene="fallen", success=s), base="open_fridge")
        load_task.cache_clear()
        load_task("fallen")


def test_all_mistakes_of_a_file_are_told_at_once(write_task):
    def change(data):
        data["termination"]["threshold"] = 0
        data["oracle"][0]["waypoint"] = 3
        data["keypoints"][0].pop("body")

    write_task("broken", change)
    lines = load_error("broken").splitlines()
    assert [line.split(": ")[1] for line in lines] == ["keypoints.0.body", "termination.threshold", "oracle.0.waypoint"]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("a: [1, 2\nb: 3", "not valid YAML"),
        ("scene: kitchen_counter\n\trobot: x", "line 2"),
        ("just words", "expected keys and values, got str"),
        ("- a\n- b", "got list"),
        ("", "got NoneType"),
    ],
)
def test_file_that_is_no_mapping_is_told_so(extra_root, text, word):
    path = extra_root / "tasks/broken/task.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    message = load_error("broken")
    assert message.startswith(str(path)) and word in message


def test_missing_usd_is_told_with_where_it_was_searched_and_how_to_build_it(write_task, write_scene, extra_root):
    write_scene("empty_counter", set_at("assets", 2, "usd", "objects/apple/aple.usda"))
    path = write_task("broken", set_at("scene", "empty_counter"))
    message = load_error("broken")
    assert message.startswith(f"{path}: no asset 'objects/apple/aple.usda'")
    assert str(extra_root / "assets") in message and "scripts/build_assets.py" in message


def test_wrong_scene_and_robot_files_name_themselves(write_task, write_scene, extra_root):
    scene = write_scene("bad_counter", set_at("assets", 0, "kind", "soft"))
    write_task("broken", set_at("scene", "bad_counter"))
    message = load_error("broken")
    assert message.startswith(f"{scene}: assets.0.kind: ") and "'static', 'rigid' or 'articulation'" in message
    robots = "assets/robots/{}/robot.yaml"
    change = set_at("finger_drive", "stiffness", -10)
    robot = write_yaml(extra_root / robots.format("weak"), ROOT / robots.format("allegro_floating"), change)
    write_task("broken_too", set_at("robot", "weak"))
    assert load_error("broken_too").startswith(f"{robot}: finger_drive.stiffness: ")


def test_scene_joint_that_the_asset_does_not_have_is_told_the_joints(write_task, write_scene):
    scene = write_scene("bad_room", set_at("assets", 0, "joints", {"door_joint": {"damping": 1.0}}), base="living_room")
    write_task("broken", set_at("scene", "bad_room"), base="open_drawer")
    message = load_error("broken")
    assert message.startswith(f"{scene}: assets.cabinet.joints: unknown joint 'door_joint'")
    assert "drawer_bottom_joint, drawer_middle_joint, drawer_top_joint" in message


# --- the JSON Schema ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("model", "path"), FILES, ids=[path.parent.name for _, path in FILES])
def test_schema_accepts_the_committed_files(model, path):
    jsonschema.Draft202012Validator(model.model_json_schema()).validate(yaml.safe_load(path.read_text()))


def test_printed_schema_refuses_what_loading_refuses(capsys):
    assert main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    source = (ROOT / "tasks/move_apple/task.yaml").read_text()
    for change, field in (
        (set_at("instructon", "x"), []),
        (set_at("termination", "threshold", -0.1), ["termination", "threshold"]),
        (set_at("initial_state", "hand", "x", [0, 1, 2]), ["initial_state", "hand", "x"]),
        (set_at("initial_state", "hand", "x", "left"), ["initial_state", "hand", "x"]),
        (set_at("success", "all", 0, "near", "distance", 0), ["success", "all", 0, "near", "distance"]),
        (set_at("keypoints", 0, "point", [0, 0]), ["keypoints", 0, "point"]),
    ):
        data = yaml.safe_load(source)
        change(data)
        error = jsonschema.exceptions.best_match(validator.iter_errors(data))
        assert error is not None
        assert list(error.absolute_path) == field


@pytest.mark.parametrize("kind", ["task", "scene", "robot"])
def test_every_kind_of_file_has_a_schema(kind, capsys):
    assert main(["schema", kind]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert schema["additionalProperties"] is False and "properties" in schema
    assert "required" in (schema["then"] if kind == "task" else schema)  # unless the task extends another one
