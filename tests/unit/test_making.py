"""Making plans: seeds of splits, plans that fail, and a model's keypoints put onto the bodies that it pointed at."""

import json
import time

import numpy as np
import pytest

from scaffoldlab.camera import Camera, RgbdImage
from scaffoldlab.errors import ScaffoldError
from scaffoldlab.evaluation.report import plan_source
from scaffoldlab.geometry import pose_apply
from scaffoldlab.planners.base import Planner
from scaffoldlab.planners.ledger import Ledger
from scaffoldlab.planners.making import (
    make_library,
    make_plan,
    make_request,
    plan_check,
    scripted_library,
    split_seed,
)
from scaffoldlab.planners.replay import replay_planner
from scaffoldlab.planners.scripted import ScriptedPlanner
from scaffoldlab.planners.settings import VlmSettings
from scaffoldlab.planners.vlm import vlm_planner
from scaffoldlab.specs.bodies import solid_boxes
from scaffoldlab.specs.initial_state import body_poses, sample_initial_state
from scaffoldlab.specs.models import load_task
from vlm_server import Behaviour, VlmServer

RED, WOOD, STONE = (200, 20, 20), (190, 140, 90), (170, 170, 165)


class Failing(Planner):
    """The oracle, except that the plans of some numbers fail."""

    name, needs_image = "failing", False

    def __init__(self, composition, failing, message="no reply"):
        self.oracle, self.failing, self.message = ScriptedPlanner(composition.task.oracle), failing, message

    def plan(self, request):
        if request.index in self.failing:
            raise ScaffoldError(f"plan {request.index}: {self.message}")
        return self.oracle.plan(request)


@pytest.fixture(scope="module")
def apple():
    return load_task("move_apple")


# --- seeds ----------------------------------------------------------------------------------------------------------


def test_seeds_of_splits_are_the_same_on_every_machine():
    """The first four bytes of the SHA-256 of "task/split", as ``sha256sum`` prints them."""
    assert split_seed("move_apple", "train") == 0x0BDA1E44
    assert split_seed("move_apple", "test") == 0x4AF54925


def test_splits_share_no_initial_state(apple):
    hands = [
        sample_initial_state(apple, seed=split_seed("move_apple", split), index=index)["hand"][:3]
        for split in ("train", "validation", "test")
        for index in range(100)
    ]
    assert len(np.unique(np.round(hands, 9), axis=0)) == 300


# --- libraries ------------------------------------------------------------------------------------------------------


def test_scripted_plans_start_at_the_truth_and_end_at_the_goal(apple):
    library = scripted_library(apple, count=8, seed=1)
    for index, plan in enumerate(library.plans):
        state = sample_initial_state(apple, seed=1, index=index)
        np.testing.assert_allclose(plan.keypoints_e[0, 0], state["apple"][:3], atol=1e-12)
        np.testing.assert_allclose(plan.keypoints_e[:, 1], [[0, -0.2, 0.916]] * 20, atol=1e-12)
        np.testing.assert_allclose(plan.wrist_e[0], state["hand"], atol=1e-12)
        # The oracle's last hand goal: 3.6 cm above the board's upper face.
        np.testing.assert_allclose(plan.wrist_e[-1, :3], [0, -0.2, 0.952], atol=1e-12)
        # It has carried the apple from the grasp on: the apple ends where the hand does.
        np.testing.assert_allclose(plan.keypoints_e[-1, 0], plan.wrist_e[-1, :3], atol=1e-12)
        # A planner gives positions only: the hand keeps its orientation.
        np.testing.assert_allclose(plan.wrist_e[:, 3:], [state["hand"][3:]] * 20)


def test_noise_moves_every_waypoint_but_the_first_and_differs_over_plans(apple):
    clean, noisy = (scripted_library(apple, count=30, seed=1, noise=noise) for noise in (0.0, 0.015))
    offsets = np.array(
        [
            np.concatenate([n.keypoints_e - c.keypoints_e, (n.wrist_e - c.wrist_e)[:, None, :3]], 1)
            for c, n in zip(clean.plans, noisy.plans, strict=True)
        ]
    )
    assert (offsets[:, 0] == 0).all() and noisy.header["waypoint_noise_m"] == 0.015
    assert offsets[:, 1:].std() == pytest.approx(0.015, rel=0.05)
    assert np.abs(np.corrcoef(offsets[:, 1:].reshape(30, -1)) - np.eye(30)).max() < 0.5


@pytest.mark.parametrize("noise", [-0.01, float("nan"), float("inf")])
def test_noise_that_is_no_standard_deviation_makes_no_library(apple, noise):
    with pytest.raises(ScaffoldError, match=r"move_apple: the noise .* standard deviation .* allowed: 0 or more"):
        scripted_library(apple, count=1, seed=0, noise=noise)


def test_failing_plans_are_left_out_and_reported(apple):
    told = []
    library = make_library(
        apple, Failing(apple, {1, 3}), count=5, seed=2, on_plan=lambda index, failure: told.append((index, failure))
    )
    assert [plan.provenance["index"] for plan in library.plans] == [0, 2, 4]
    failures = {"1": "plan 1: no reply", "3": "plan 3: no reply"}
    assert library.header["failures"] == failures and library.header["asked"] == 5
    assert told == [(i, failures.get(str(i))) for i in range(5)]


def test_left_out_plans_do_not_change_the_others(apple):
    whole = scripted_library(apple, count=5, seed=2, noise=0.01)
    parts = make_library(apple, Failing(apple, {0, 1}), count=5, seed=2, noise=0.01)
    for got, expected in zip(parts.plans, whole.plans[2:], strict=True):
        np.testing.assert_array_equal(got.keypoints_e, expected.keypoints_e)


def test_not_one_plan_is_an_error_that_says_why(apple):
    with pytest.raises(ScaffoldError, match="none of 3 plans succeeded; the first failed because: plan 0: no reply"):
        make_library(apple, Failing(apple, {0, 1, 2}), count=3, seed=0)


def test_waypoints_that_are_no_plan_are_left_out_with_the_reasons(apple):
    class TooHigh(Failing):
        def plan(self, request):
            waypoints = super().plan(request)
            if request.index == 1:
                waypoints.hand_e[5, 2] = 2.5  # the workspace of the kitchen counter ends at 1.60 m
            return waypoints

    library = make_library(apple, TooHigh(apple, set()), count=3, seed=0)
    assert [plan.provenance["index"] for plan in library.plans] == [0, 2]
    reason = library.header["failures"]["1"]
    assert "waypoint 5, the hand" in reason and "out of reach; allowed: z from 0.85 to 1.60 m" in reason


def test_fewer_waypoints_than_the_oracle_has_keep_start_and_end(apple):
    oracle = ScriptedPlanner(apple.task.oracle)
    requests = (make_request(apple, seed=0, index=0, waypoint_count=n) for n in (20, 10))
    full, half = (make_plan(apple, oracle, request) for request in requests)
    assert (len(full.wrist_e), len(half.wrist_e)) == (20, 10)
    for name in ("keypoints_e", "wrist_e"):
        np.testing.assert_array_equal(getattr(half, name)[[0, -1]], getattr(full, name)[[0, -1]])


def test_concurrency_changes_neither_order_nor_content(apple):
    serial = make_library(apple, Failing(apple, {2}), count=12, seed=4)
    parallel = make_library(apple, Failing(apple, {2}), count=12, seed=4, concurrency=6)
    assert serial.digest == parallel.digest


# --- a model's plan -------------------------------------------------------------------------------------------------


def kitchen_picture(composition, index: int, seed: int) -> RgbdImage:
    """A picture of an initial state by ray casting: counter, board and apple as plane, rectangle and sphere."""
    spec = composition.scene.camera
    camera = Camera.look_at(spec.eye, spec.target, width=400, height=400, fov_deg=spec.fov_deg)
    apple = sample_initial_state(composition, seed=seed, index=index)["apple"][:3]
    v, u = np.mgrid[0:400, 0:400] + 0.5
    rays_c = np.stack([u, v, np.ones_like(u)], -1) @ np.linalg.inv(camera.intrinsics).T
    rays, eye = rays_c @ camera.pose_ec[:3, :3].T, camera.pose_ec[:3, 3]
    depth = np.full((400, 400), np.inf)
    rgb = np.zeros((400, 400, 3), np.uint8)

    def paint(distance, hit, colour):
        nearer = hit & (distance < depth) & (distance > 0)
        depth[nearer] = distance[nearer]
        rgb[nearer] = colour

    for height, half, middle, colour in (
        (0.900, (0.40, 0.70), (0, 0), STONE),
        (0.916, (0.11, 0.15), (0, -0.2), WOOD),
    ):
        distance = (height - eye[2]) / rays[..., 2]
        at = eye + rays * distance[..., None]
        paint(distance, (np.abs(at[..., :2] - middle) <= half).all(-1), colour)
    a, b, c = (rays**2).sum(-1), rays @ (eye - apple), (eye - apple) @ (eye - apple) - 0.0375**2
    root = b**2 - a * c
    paint((-b - np.sqrt(np.maximum(root, 0))) / a, root > 0, RED)
    return RgbdImage(rgb, np.where(np.isfinite(depth), depth, 0.0), camera)


@pytest.fixture
def model(monkeypatch):
    for name in (
        "SCAFFOLDLAB_BASE_URL",
        "SCAFFOLDLAB_MODEL",
        "OPENAI_BASE_URL",
        "OPENAI_API_KEY",
        "SCAFFOLDLAB_API_KEY",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with VlmServer(colours={"apple": RED, "cutting board": WOOD}) as server:
        yield server


def settings(server, **changes):
    changes = {"backoff_s": 0.001, "timeout_s": 20, "image_size": 400} | changes
    return VlmSettings(base_url=server.url, model="gemini-loopback", **changes)


def test_model_plans_from_pictures_are_put_onto_the_bodies(apple, model, tmp_path):
    images = [kitchen_picture(apple, index, seed=7) for index in range(3)]
    planner = vlm_planner(settings(model), ledger=tmp_path / "ledger.jsonl", check=plan_check(apple))
    library = make_library(apple, planner, count=3, seed=7, images=images, concurrency=3)
    assert len(library) == 3 and library.header["failures"] == {} and library.header["planner"] == "vlm"
    for index, plan in enumerate(library.plans):
        state = sample_initial_state(apple, seed=7, index=index)
        poses = body_poses(apple, state)
        fruit, board = plan.keypoints
        assert (fruit.name, fruit.body, board.name, board.body) == ("apple", "apple", "cutting board", "cutting_board")
        # On the skin of the apple (its visual mesh, dimples included), on the side that the camera sees.
        assert 0.02 < np.linalg.norm(fruit.point_b) < 0.042
        seen = pose_apply(poses["apple"], np.array(fruit.point_b)) - state["apple"][:3]
        assert seen @ (np.array(apple.scene.camera.eye) - state["apple"][:3]) > 0
        # On the upper face of the board, about its middle.
        assert board.point_b[2] == pytest.approx(0.008, abs=1e-3) and np.hypot(*board.point_b[:2]) < 0.02
        # The plan starts at the snapped points and at the true hand.
        located = [pose_apply(poses[k.body], np.array(k.point_b)) for k in plan.keypoints]
        np.testing.assert_allclose(plan.keypoints_e[0], located, atol=1e-12)
        np.testing.assert_allclose(plan.wrist_e[0], state["hand"], atol=1e-12)
        # The loopback model carries the apple over the board and puts it down 4 cm above what it saw of it.
        np.testing.assert_allclose(plan.keypoints_e[-1, 0], plan.keypoints_e[-1, 1] + (0, 0, 0.04), atol=0.03)
        assert plan.keypoints_e[:, 0, 2].max() > plan.keypoints_e[0, 0, 2] + 0.08
    assert sorted(model.kinds()) == 3 * ["keypoints"] + 3 * ["trajectory"]


def test_replay_of_the_ledger_makes_the_same_plans_offline(apple, model, tmp_path):
    images = [kitchen_picture(apple, index, seed=7) for index in range(2)]
    made = make_library(
        apple, vlm_planner(settings(model), ledger=tmp_path / "l.jsonl", check=plan_check(apple)),
        count=2, seed=7, images=images,
    )  # fmt: skip
    asked = len(model.requests)
    replayed = make_library(
        apple, replay_planner(tmp_path / "l.jsonl", check=plan_check(apple)), count=2, seed=7, images=images
    )
    assert len(model.requests) == asked
    for plan, again in zip(made.plans, replayed.plans, strict=True):
        assert plan.keypoints == again.keypoints
        np.testing.assert_array_equal(plan.keypoints_e, again.keypoints_e)
        np.testing.assert_array_equal(plan.wrist_e, again.wrist_e)


def test_point_on_no_surface_leaves_the_plan_out(apple, model, tmp_path):
    """Depth that is 20 cm short, as of a glass in front, puts the apple in mid-air."""
    images = [kitchen_picture(apple, index, seed=7) for index in range(2)]
    images[1].depth[:] -= 0.2
    library = make_library(apple, vlm_planner(settings(model)), count=2, seed=7, images=images)
    assert [plan.provenance["index"] for plan in library.plans] == [0]
    assert "keypoint 'apple': located at" in library.header["failures"]["1"]
    assert "allowed: 5 cm" in library.header["failures"]["1"]


def test_model_that_points_outside_the_picture_is_asked_again(apple, model, tmp_path):
    model.misbehave("keypoints", "outside")
    path = tmp_path / "ledger.jsonl"
    library = make_library(
        apple, vlm_planner(settings(model), ledger=path), count=1, seed=7, images=[kitchen_picture(apple, 0, seed=7)]
    )
    assert library.plans[0].provenance["repairs"] == 1
    assert [r.verdict == "ok" for r in Ledger.read(path).records] == [False, True, True]


def test_plan_that_leaves_the_workspace_is_repaired_by_quoting_it(apple, model, tmp_path):
    model.misbehave("trajectory", "crossed")  # the hand at (9, 9, 9) m
    planner = vlm_planner(settings(model), ledger=tmp_path / "ledger.jsonl", check=plan_check(apple))
    library = make_library(apple, planner, count=1, seed=7, images=[kitchen_picture(apple, 0, seed=7)])
    repair = model.requests[-1].body["messages"][-1]["content"]
    assert "hand" in repair and "out of reach" in repair
    assert library.plans[0].provenance["repairs"] == 1
    assert json.loads(json.dumps(library.plans[0].provenance))["model"] == "gemini-loopback"


def test_plan_that_is_too_fast_for_the_steps_it_has_is_sent_back(apple, model):
    """As in the middle of an episode; over a whole one the same waypoints are slow enough."""
    planner, image = vlm_planner(settings(model), check=plan_check(apple)), kitchen_picture(apple, 0, seed=7)
    whole, short = (make_request(apple, seed=7, index=0, image=image, control_steps=n) for n in (None, 20))
    make_plan(apple, planner, whole)
    assert model.kinds() == ["keypoints", "trajectory"]
    with pytest.raises(ScaffoldError, match="gave no usable answer .* m/s"):
        make_plan(apple, planner, short)
    assert model.kinds()[2:] == ["keypoints", "trajectory", "trajectory"]
    assert "0.02 s" in model.requests[-1].body["messages"][-1]["content"]  # 20 waypoints in 1/3 s


def test_full_disk_under_the_ledger_stops_the_paying(apple, model, small_disk):
    """What cannot be recorded is paid for and lost, so the first failure to record ends it all."""
    images = [kitchen_picture(apple, index, seed=7) for index in range(12)]
    ledger = small_disk / "ledger.jsonl"
    planner = vlm_planner(settings(model), ledger=ledger, check=plan_check(apple))
    (small_disk / "filler").write_bytes(bytes(256 * 1024 - 4096 * 6))
    with pytest.raises(ScaffoldError, match="could not be recorded"):
        make_library(apple, planner, count=12, seed=7, images=images)
    recorded = Ledger.read(ledger).records
    assert recorded and len(model.requests) <= len(recorded) + 1
    # With room again, only what is not recorded is asked for.
    (small_disk / "filler").unlink()
    asked = len(model.requests)
    again = vlm_planner(settings(model), ledger=ledger, check=plan_check(apple))
    library = make_library(apple, again, count=12, seed=7, images=images)
    assert len(library) == 12 and len(model.requests) == asked + 2 * 12 - len(recorded)


# --- orientation and collisions -------------------------------------------------------------------------------------


def test_orientation_of_a_model_becomes_the_wrist_track(apple, model):
    planner = vlm_planner(settings(model, orientation=True), check=plan_check(apple))
    library = make_library(
        apple, planner, count=2, seed=7, images=[kitchen_picture(apple, i, seed=7) for i in range(2)]
    )
    for plan in library.plans:
        np.testing.assert_array_equal(plan.wrist_e[0], plan.initial_state["hand"])
        turned = np.degrees(plan.wrist_e[:, 5] - plan.wrist_e[0, 5])
        np.testing.assert_allclose(turned, np.linspace(0, 60, 20), atol=0.6)  # it saw whole degrees
        _, wrist = plan.tracks(200)
        assert np.degrees(np.abs(np.diff(wrist[:, 3:], axis=0))).max() < 1


def test_keypoints_that_are_true_stay_where_the_task_has_them(apple, model):
    """The apple's keypoint is its middle; one that a model has pointed to lies on its surface."""
    planner = vlm_planner(settings(model), check=plan_check(apple), true_keypoints=True)
    library = make_library(apple, planner, count=2, seed=7)
    assert [k.point_b for k in library.plans[0].keypoints] == [tuple(k.point) for k in apple.task.keypoints]
    assert plan_source(library) == "gemini-loopback, keypoints by the oracle"


@pytest.mark.parametrize("task", ["move_apple", "open_drawer"])
def test_oracle_goes_through_nothing_solid(task):
    composition = load_task(task)
    check, oracle = plan_check(composition, collisions=True), ScriptedPlanner(composition.task.oracle)
    for index in range(20):
        request = make_request(composition, seed=0, index=index)
        assert check(request, oracle.plan(request)) == []


def test_colliders_are_boxes_where_their_solids_are(apple):
    """The counter's top is at 0.90 m, and the board, 1.6 cm thick, lies on it at y = -0.2 m."""
    boxes = solid_boxes(apple, body_poses(apple, sample_initial_state(apple, seed=0, index=0)))
    tops = {b.body: max(c.center_e[2] + c.half[2] for c in boxes if c.body == b.body) for b in boxes}
    assert set(tops) == {"counter", "cutting_board"}
    np.testing.assert_allclose([tops["counter"], tops["cutting_board"]], [0.900, 0.916], atol=1e-3)
    board = next(b for b in boxes if b.body == "cutting_board")
    np.testing.assert_allclose(board.center_e[:2], (0, -0.2), atol=1e-3)


def test_way_through_the_counter_is_quoted_to_the_model(apple, model):
    def dive(text):
        waypoints = json.loads(text)
        waypoints[-1]["hand"]["z"] -= 0.10  # from 6 cm above the board, 1.6 cm thick, into the counter
        return json.dumps(waypoints)

    picture = kitchen_picture(apple, 0, seed=7)
    for collisions, repairs in ((False, 0), (True, 1)):
        model.misbehave("trajectory", Behaviour(rewrite=dive))
        planner = vlm_planner(settings(model), check=plan_check(apple, collisions=collisions))
        library = make_library(apple, planner, count=1, seed=7, images=[picture])
        assert library.plans[0].provenance["repairs"] == repairs
    assert "which is solid" in model.requests[-1].body["messages"][-1]["content"]


def test_interrupt_makes_no_further_plan(apple):
    """Ctrl-C arrives in the main thread while others plan; those in flight end, the rest never begin."""
    begun = []

    class Slow(Failing):
        def plan(self, request):
            begun.append(request.index)
            time.sleep(0.05)
            return super().plan(request)

    def interrupt(index, failure):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_library(apple, Slow(apple, set()), count=50, seed=0, concurrency=2, on_plan=interrupt)
    assert len(begun) <= 6
