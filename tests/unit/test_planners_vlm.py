"""The vlm planner against a loopback model: what it asks, what it makes of answers, what is never lost or leaked."""

import json
import logging
import pickle
import re
import socket
import subprocess
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from scaffoldlab.camera import Camera, RgbdImage
from scaffoldlab.errors import ScaffoldError
from scaffoldlab.keypoints.keypoint import Keypoint
from scaffoldlab.planners.base import PlanRequest, Waypoints
from scaffoldlab.planners.endpoint import EndpointError
from scaffoldlab.planners.ledger import Ledger
from scaffoldlab.planners.meter import BudgetError
from scaffoldlab.planners.replay import replay_planner
from scaffoldlab.planners.scripted import ScriptedPlanner
from scaffoldlab.planners.settings import VlmSettings
from scaffoldlab.planners.vlm import prompt, relative, sent_image, vlm_planner
from scaffoldlab.specs.models import load_task
from vlm_server import Behaviour, VlmServer

KEY = "sk-secret-0123456789"
COLOURS = {"apple": (200, 20, 20), "cutting board": (20, 200, 20)}
BOARD = slice(80, 120), slice(140, 170)


def picture(shade=120):
    """A camera 1.5 m above the origin, x of the env up; an apple on the left of the image, a board on the right."""
    camera = Camera.look_at((0, 0, 1.5), (0, 0, 0), width=200, height=200, fov_deg=60, up_e=(1, 0, 0))
    rgb, depth = np.full((200, 200, 3), shade, np.uint8), np.full((200, 200), 1.5)
    rgb[95:105, 40:60] = COLOURS["apple"]
    rgb[BOARD] = COLOURS["cutting board"]
    return RgbdImage(rgb, depth, camera)


def request(**changes):
    values = {
        "index": 0,
        "seed": 7,
        "task": "move_apple",
        "instruction": "Move the apple to the cutting board.",
        "keypoint_names": ("apple", "cutting board"),
        "activity": "pick up an apple and put it on a cutting board",
        "steps": ("First move the robot hand towards the apple.", "Then grasp the apple and lift it up."),
        "waypoint_count": 20,
        "hand_e": np.array((-0.1, 0.1, 0.3)),
        "keypoints": (),
        "keypoints_e": np.zeros((2, 3)),
        "image": picture(),
    }
    return PlanRequest(**values | changes)


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    for name in ("SCAFFOLDLAB_BASE_URL", "SCAFFOLDLAB_MODEL", "OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SCAFFOLDLAB_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def server():
    with VlmServer(colours=COLOURS) as running:
        yield running


def options(server, **changes):
    values = {
        "base_url": server.url,
        "model": "gemini-loopback",
        "backoff_s": 0.001,
        "timeout_s": 10,
        "image_size": 200,
    }
    return VlmSettings(**values | changes)


def records(tmp_path):
    return Ledger.read(tmp_path / "ledger.jsonl").records


@pytest.fixture
def plan(server, tmp_path):
    """Plans once with the loopback model, a ledger and the given settings."""

    parts = ("check", "examples", "true_keypoints", "trajectories")

    def run(asked=None, **changes):
        given = {part: changes.pop(part) for part in parts if part in changes}
        planner = vlm_planner(options(server, **changes), ledger=tmp_path / "ledger.jsonl", **given)
        return planner.plan(asked or request())

    return run


# --- what is asked and what becomes of the answer -------------------------------------------------------------------


def test_plan_starts_where_the_keypoints_were_seen_and_follows_the_model(plan, server):
    waypoints = plan()
    # 1 px is 1.5 m * 2 tan(30 deg) / 200; the apple's middle is 50 px left of the centre, which is +y.
    located = 1.5 * 2 * np.tan(np.deg2rad(30)) / 200 * np.array([[0, 50, 0], [0, -55, 0]])
    np.testing.assert_allclose(waypoints.located_e, located, atol=0.01)
    np.testing.assert_allclose(waypoints.pixels, [[50, 100], [155, 100]], atol=1)
    np.testing.assert_array_equal(waypoints.keypoints_e[0], waypoints.located_e)
    np.testing.assert_array_equal(waypoints.hand_e[0], request().hand_e)
    assert waypoints.keypoints_e.shape == (20, 2, 3) and waypoints.hand_e.shape == (20, 3)
    # The loopback model puts the apple 4 cm above the board, as the prompt's rounded positions say.
    np.testing.assert_allclose(waypoints.keypoints_e[-1, 0], waypoints.located_e[1] + (0, 0, 0.04), atol=0.01)
    np.testing.assert_allclose(waypoints.keypoints_e[-1, 1], waypoints.located_e[1], atol=0.01)
    assert server.kinds() == ["keypoints", "trajectory"]
    assert waypoints.source["planner"] == "vlm" and waypoints.source["repairs"] == waypoints.source["retries"] == 0
    assert json.loads(json.dumps(waypoints.source)) == waypoints.source


@pytest.mark.parametrize("model", ["gemini-2.5-flash", "qwen3-vl", "Qwen2.5-VL-7B", "Molmo-7B", "gpt-x"])
def test_models_of_every_point_convention_find_the_same_pixels(plan, model):
    np.testing.assert_allclose(plan(model=model).pixels, [[50, 100], [155, 100]], atol=1)


def test_wide_image_is_sent_in_its_proportions(plan, server):
    wide = Camera.look_at((0, 0, 1.5), (0, 0, 0), width=400, height=200, fov_deg=60, up_e=(1, 0, 0))
    image = picture()
    image = RgbdImage(np.tile(image.rgb, (1, 2, 1)), np.tile(image.depth, (1, 2)), wide)
    image.rgb[:, 200:] = 120
    np.testing.assert_allclose(plan(request(image=image), image_size=300).pixels, [[50, 100], [155, 100]], atol=1.5)
    assert sent_image(image.rgb, 800).shape == (400, 800, 3)


def test_requests_carry_model_image_temperature_and_key(plan, server):
    plan(trajectory_parameters={"reasoning_effort": "low"}, image_size=VlmSettings().image_size)
    pointing, trajectory = server.requests
    assert pointing.body["temperature"] == 0.5 and "temperature" not in trajectory.body
    assert trajectory.body["reasoning_effort"] == "low" and trajectory.body["model"] == "gemini-loopback"
    assert [part["type"] for part in pointing.body["messages"][0]["content"]] == ["image_url", "text"]
    assert pointing.headers["authorization"] == f"Bearer {KEY}"
    from vlm_server import _prompt

    text, (image,) = _prompt(pointing.body)
    assert image.shape == (800, 800, 3)
    assert "Point to the apple and the cutting board in the image." in text and "[y, x], normalized to 0-1000" in text


def test_trajectory_prompt_is_the_papers():
    """Appendix H.2.2: its positions, count, format and last words."""
    start = relative(
        ("apple", "cutting board"), np.array([[[1, 2, 0.5], [0.994, 1.616, 0.4501]]]), np.array([[0.93, 1.91, 0.761]])
    )
    text = prompt(
        "trajectory",
        names=("apple", "cutting board", "hand"),
        activity="pick up an apple and put it on a cutting board",
        steps=("First move the robot hand towards the apple.",),
        count=20,
        start=start[0],
        examples=[],
    )
    for line in (
        "You are controlling a robot hand to pick up an apple and put it on a cutting board.",
        "The x axis is forward, the y axis is left and the z axis is up.",
        "First move the robot hand towards the apple.",
        "The initial position of the apple is [0.00, 0.00, 0.00].",
        "The initial position of the cutting board is [-0.01, -0.38, -0.05].",
        "The initial position of the hand is [-0.07, -0.09, 0.26].",
        '[{"waypoint_num": 0, "apple": {"x": float, "y": float, "z": float}, "cutting board": '
        '{"x": float, "y": float, "z": float}, "hand": {"x": float, "y": float, "z": float}} ...]',
    ):
        assert line in text.splitlines()
    assert "exactly 20 waypoints" in text and "-0.00" not in prompt(
        "trajectory",
        names=("a",),
        activity="",
        steps=(),
        count=2,
        start=relative(("a",), np.zeros((1, 1, 3)), np.full((1, 3), -0.001))[0],
        examples=[],
    )


def test_examples_are_shown_before_the_question(plan, server):
    shown = Waypoints(keypoints_e=np.full((2, 2, 3), 0.5), hand_e=np.full((2, 3), 0.75), located_e=np.zeros((2, 3)))
    plan(examples=lambda request: [shown])
    text = server.requests[1].body["messages"][0]["content"]
    assert text.index('"hand": {"x": 0.25, "y": 0.25, "z": 0.25}') < text.index("Now plan from this start")


def test_keypoints_of_a_task_are_elicited(server, tmp_path):
    planner = vlm_planner(options(server), ledger=tmp_path / "ledger.jsonl")
    assert planner.keypoint_names("put the apple on the cutting board", picture()) == ("apple", "cutting board")
    assert "has to put the apple on the cutting board" in json.dumps(
        server.requests[0].body["messages"][0]["content"][1]
    )
    assert [r.kind for r in records(tmp_path)] == ["elicitation"]


def test_reserved_keypoint_name_and_missing_image_are_refused_before_any_call(plan, server):
    with pytest.raises(ScaffoldError, match="no keypoint may be called hand"):
        plan(request(keypoint_names=("apple", "hand")))
    with pytest.raises(ScaffoldError, match="vlm planner needs an image"):
        plan(request(image=None))
    assert not server.requests


# --- what an oracle does in the model's place ----------------------------------------------------------------------


def test_model_that_is_told_the_keypoints_is_asked_for_their_trajectory_only(plan, server):
    keypoints_e = np.array([[0.0, 0.30, 0.02], [0.10, -0.30, 0.0]])
    keypoints = (Keypoint("apple", "apple", (0, 0, 0)), Keypoint("cutting board", "cutting_board", (0, 0, 0.008)))
    waypoints = plan(request(image=None, keypoints_e=keypoints_e, keypoints=keypoints), true_keypoints=True)
    assert server.kinds() == ["trajectory"]
    np.testing.assert_array_equal(waypoints.located_e, keypoints_e)
    np.testing.assert_array_equal(waypoints.keypoints_e[0], keypoints_e)
    assert waypoints.keypoints == keypoints and waypoints.pixels is None
    assert waypoints.source["oracle"] == "keypoints" and waypoints.source["repairs"] == 0


def test_trajectory_of_the_oracle_goes_from_where_the_model_has_pointed(plan, server):
    stages = load_task("move_apple").task.oracle
    waypoints = plan(trajectories=ScriptedPlanner(stages))
    assert server.kinds() == ["keypoints"]
    np.testing.assert_allclose(waypoints.pixels, [[50, 100], [155, 100]], atol=1)
    pointed = request(keypoints_e=waypoints.located_e)
    np.testing.assert_array_equal(waypoints.keypoints_e, ScriptedPlanner(stages).plan(pointed).keypoints_e)
    assert waypoints.source["oracle"] == "trajectory" and waypoints.source["repairs"] == 0


def test_model_is_told_when_the_oracle_s_trajectory_from_its_points_is_no_plan(plan, server):
    reasons = iter([["the hand goes through the wall."], []])
    waypoints = plan(trajectories=ScriptedPlanner(load_task("move_apple").task.oracle), check=lambda *_: next(reasons))
    assert server.kinds() == ["keypoints"] * 2 and waypoints.source["repairs"] == 1
    assert "through the wall" in server.requests[1].body["messages"][-1]["content"]


def test_oracle_of_both_parts_is_no_model(plan):
    with pytest.raises(ScaffoldError, match="nothing is left to ask"):
        plan(true_keypoints=True, trajectories=ScriptedPlanner([]))


def test_replay_with_the_same_oracle_gives_the_same_plan(plan, tmp_path):
    asked = request(image=None, keypoints_e=np.array([[0.0, 0.30, 0.02], [0.10, -0.30, 0.0]]))
    recorded = plan(asked, true_keypoints=True)
    again = replay_planner(tmp_path / "ledger.jsonl", true_keypoints=True).plan(asked)
    np.testing.assert_array_equal(again.keypoints_e, recorded.keypoints_e)
    assert again.source["oracle"] == "keypoints"


# --- orientation and votes ------------------------------------------------------------------------------------------


def test_orientation_is_asked_for_and_comes_back_in_radians(plan, server):
    held = np.radians((10.0, -20.0, 350.0))
    waypoints = plan(request(hand_rpy=held), orientation=True)
    text = server.requests[1].body["messages"][0]["content"]
    assert "The initial roll, pitch and yaw of the hand are [10, -20, 350]." in text
    assert '"hand": {"x": float, "y": float, "z": float, "roll": float, "pitch": float, "yaw": float}}' in text
    assert '"apple": {"x": float, "y": float, "z": float}, ' in text
    turned = np.column_stack((np.full(20, 10), np.full(20, -20), np.linspace(350, 410, 20)))
    np.testing.assert_allclose(np.degrees(waypoints.wrist_rpy), turned, atol=0.06)  # it writes tenths of degrees
    np.testing.assert_array_equal(waypoints.wrist_rpy[0], held)


def test_without_orientation_the_prompt_says_nothing_of_it(plan, server):
    assert plan().wrist_rpy is None
    text = server.requests[1].body["messages"][0]["content"]
    assert "Roll" not in text and '"roll"' not in text and "middle of the task" not in text


def test_hand_without_its_angles_is_sent_back(plan, server):
    def forget(text):
        waypoints = json.loads(text)
        del waypoints[4]["hand"]["yaw"]
        return json.dumps(waypoints)

    server.misbehave("trajectory", Behaviour(rewrite=forget))
    assert plan(orientation=True).source["repairs"] == 1
    assert 'waypoint 4: "hand" has no "yaw"' in server.requests[-1].body["messages"][-1]["content"]


def test_examples_show_their_orientation(plan, server):
    zeros = np.zeros((2, 3))
    shown = Waypoints(
        keypoints_e=np.zeros((2, 2, 3)), hand_e=zeros, located_e=zeros, wrist_rpy=np.radians([[0, 0, 0], [0, 0, 30]])
    )
    plan(orientation=True, examples=lambda request: [shown])
    assert '"roll": 0.0, "pitch": 0.0, "yaw": 30.0}' in server.requests[1].body["messages"][0]["content"]


def test_feedback_comes_before_the_question(plan, server):
    plan(request(feedback="The apple has fallen."))
    text = server.requests[1].body["messages"][0]["content"]
    assert text.index("The apple has fallen.\n") < text.index("exactly 20 waypoints")


def shifted(x):
    """The answer with the hand moved by x [m] at every waypoint."""

    def rewrite(text):
        waypoints = json.loads(text)
        for waypoint in waypoints:
            waypoint["hand"]["x"] += x
        return json.dumps(waypoints)

    return Behaviour(rewrite=rewrite)


def test_of_several_votes_the_most_central_is_taken(plan, server, tmp_path):
    server.misbehave("trajectory", shifted(0.5), shifted(0.0), shifted(0.03), "short", "short", shifted(0.01))
    server.misbehave("trajectory", shifted(0.02))
    waypoints = plan(votes=6)
    assert waypoints.source["votes"] == {"asked": 6, "valid": 5, "chosen": 4}  # the median, 0.02
    alone = plan(request(index=1))
    np.testing.assert_allclose(waypoints.hand_e[1:] - alone.hand_e[1:], [[0.02, 0, 0]] * 19, atol=1e-9)
    assert waypoints.source["repairs"] == 0 and len(waypoints.source["calls"]) == 10


def test_votes_are_separate_calls_that_are_recorded_and_replayed(plan, server, tmp_path):
    server.misbehave("trajectory", shifted(0.5), shifted(0.02), shifted(0.01))
    first, count = plan(votes=3), len(server.requests)
    assert count == 6 and [r.sample for r in records(tmp_path)] == [0, 0, 1, 1, 2, 2]
    again = plan(votes=3)
    np.testing.assert_array_equal(again.hand_e, first.hand_e)
    replayed = replay_planner(tmp_path / "ledger.jsonl").plan(request())
    np.testing.assert_array_equal(replayed.hand_e, first.hand_e)
    assert replayed.source["votes"] == first.source["votes"] and len(server.requests) == count
    plan(votes=4)
    assert len(server.requests) == count + 2


def test_votes_fail_only_when_all_do(plan, server):
    server.misbehave("trajectory", *["short"] * 4)
    with pytest.raises(ScaffoldError, match="gave no usable answer to the trajectory query in 2 replies"):
        plan(votes=2)


def test_ledger_from_before_there_were_votes_is_read(plan, server, tmp_path):
    first, path = plan(), tmp_path / "ledger.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({k: v for k, v in line.items() if k != "sample"}) + "\n" for line in lines))
    count = len(server.requests)
    np.testing.assert_array_equal(plan().hand_e, first.hand_e)
    assert len(server.requests) == count


# --- several pictures in one call -----------------------------------------------------------------------------------


def several(count):
    """Requests of one library whose pictures differ: the apple lies ever further to the right."""
    requests = []
    for index in range(count):
        seen = picture(shade=120 + index)
        seen.rgb[95:105, 40:60] = 120 + index
        seen.rgb[95:105, 40 + 10 * index : 60 + 10 * index] = COLOURS["apple"]
        requests.append(request(index=index, image=seen))
    return requests


def test_one_call_locates_the_keypoints_of_several_pictures(server, tmp_path):
    alone = [vlm_planner(options(server)).plan(r) for r in several(3)]
    server.requests.clear()
    planner = vlm_planner(options(server, batch=3, price_in_usd=1, price_out_usd=1), ledger=tmp_path / "ledger.jsonl")
    planner.prepare(several(3))
    together = [planner.plan(r) for r in several(3)]
    assert server.kinds() == ["keypoints", "trajectory", "trajectory", "trajectory"]
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one.pixels, other.pixels)
        np.testing.assert_array_equal(one.keypoints_e, other.keypoints_e)
    assert len({tuple(w.pixels[0]) for w in together}) == 3
    # What the plans say that they took is what was paid in all.
    paid = records(tmp_path)
    for key, total in (
        ("tokens_in", sum(r.tokens_in for r in paid)),
        ("tokens_out", sum(r.tokens_out for r in paid)),
        ("cost_usd", sum(r.cost_usd for r in paid)),
    ):
        assert sum(w.source[key] for w in together) == pytest.approx(total, abs=3 if "tokens" in key else 1e-8)


def test_picture_without_an_answer_is_asked_about_by_itself(server):
    server.misbehave("keypoints", "outside")  # the first of all points
    planner = vlm_planner(options(server, batch=3))
    planner.prepare(several(3))
    plans = [planner.plan(r) for r in several(3)]
    assert server.kinds() == ["keypoints", "keypoints", "trajectory", "trajectory", "trajectory"]
    assert len({tuple(w.pixels[0]) for w in plans}) == 3 and all(w.source["repairs"] == 0 for w in plans)


def test_answer_about_no_picture_is_sent_back_and_then_given_up(server, tmp_path):
    server.misbehave("keypoints", "wrong_names", "empty")
    planner = vlm_planner(options(server, batch=2), ledger=tmp_path / "ledger.jsonl")
    planner.prepare(several(2))
    assert server.kinds() == ["keypoints", "keypoints"]
    assert 'Image 1: The answer has no "cutting board"' in server.requests[1].body["messages"][-1]["content"]
    for asked in several(2):
        planner.plan(asked)
    assert server.kinds()[2:] == 2 * ["keypoints", "trajectory"]


def test_pictures_of_a_batch_are_not_paid_twice_and_are_replayed(server, tmp_path):
    def plans(planner):
        planner.prepare(several(2))
        return [planner.plan(r).hand_e for r in several(2)]

    path = tmp_path / "ledger.jsonl"
    first = plans(vlm_planner(options(server, batch=2), ledger=path))
    count = len(server.requests)
    assert count == 3
    np.testing.assert_array_equal(plans(vlm_planner(options(server, batch=2), ledger=path)), first)
    replay = replay_planner(path)
    assert replay.batch == 2
    np.testing.assert_array_equal(plans(replay), first)
    assert len(server.requests) == count


def test_without_several_pictures_nothing_is_asked_before(server):
    planner = vlm_planner(options(server, batch=2))
    planner.prepare([request()])
    planner.prepare([request(image=None), request(image=None)])
    vlm_planner(options(server, batch=2), true_keypoints=True).prepare(several(2))
    assert server.kinds() == []


# --- unusable replies -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("behaviour", ["prose", "fenced", "code"])
def test_good_answers_need_no_repair(plan, server, behaviour):
    server.misbehave("keypoints", behaviour if behaviour != "code" else "fenced")
    server.misbehave("trajectory", behaviour)
    assert plan().source["repairs"] == 0


BAD_REPLIES = [
    ("keypoints", "empty", "The reply is empty."),
    ("keypoints", "html", "The reply is HTML"),
    ("keypoints", "wrong_names", 'Did you mean "cutting board" where you wrote "Cutting_board"'),
    ("keypoints", "outside", '[4321.0, 247.5] of "apple" is outside the image; allowed: x in 0..1000'),
    ("keypoints", "nan", '"point"[0]: input should be a finite number; got nan'),
    ("keypoints", "strings", '"point"[0]: input should be a valid number; got "0.25"'),
    ("keypoints", "cut", "It was cut off at the token limit"),
    ("trajectory", "empty", "The reply is empty."),
    ("trajectory", "html", "The reply is HTML"),
    ("trajectory", "wrong_names", 'Did you mean "cutting board" where you wrote "Cutting_board"'),
    ("trajectory", "short", "Waypoints: got 19; exactly 20 are needed."),
    ("trajectory", "nan", 'waypoint 3: "hand".x: input should be a finite number; got nan'),
    ("trajectory", "strings", 'waypoint 3: "hand".x: input should be a valid number; got "0.25"'),
    ("trajectory", "cut", "It was cut off at the token limit"),
]


@pytest.mark.parametrize(("kind", "behaviour", "reason"), BAD_REPLIES)
def test_bad_reply_is_sent_back_once_with_the_reason(plan, server, tmp_path, kind, behaviour, reason):
    server.misbehave(kind, behaviour)
    assert plan().source["repairs"] == 1
    bad, good = (r for r in records(tmp_path) if r.kind == kind)
    assert reason in " ".join(bad.verdict) and good.verdict == "ok" and good.repairs == bad.id
    _, said, repair = [seen for seen in server.requests if seen.kind == kind][1].body["messages"]
    assert said == {"role": "assistant", "content": bad.reply or "(no answer)"} and reason in repair["content"]


@pytest.mark.parametrize(("kind", "behaviour", "reason"), BAD_REPLIES)
def test_two_bad_replies_end_the_plan_and_lose_nothing(plan, server, tmp_path, kind, behaviour, reason):
    server.misbehave(kind, behaviour, behaviour)
    with pytest.raises(ScaffoldError, match=re.escape(reason)) as error:
        plan()
    bad = [r for r in records(tmp_path) if r.kind == kind]
    assert [r.turn for r in bad] == [0, 1] and all(r.verdict != "ok" for r in bad)
    for part in ("move_apple, plan 0", "gemini-loopback", "ledger.jsonl", bad[0].id, bad[1].id, "Run again"):
        assert part in str(error.value)
    # Run again: what was good is not paid twice, the bad query is asked anew.
    count = len(server.requests)
    plan()
    assert server.kinds()[count:] == (["keypoints", "trajectory"] if kind == "keypoints" else ["trajectory"])


def test_point_without_depth_is_a_reason(plan, server, tmp_path):
    asked = request()
    asked.image.depth[BOARD] = 0
    with pytest.raises(ScaffoldError, match='"cutting board" cannot be located in depth: .*depth 0 m'):
        plan(asked)
    assert [r.turn for r in records(tmp_path)] == [0, 1]


def test_reasons_of_the_check_are_sent_back(plan, server, tmp_path):
    server.misbehave("trajectory", "crossed")

    def check(request, waypoints):
        return ["The hand is out of reach."] if waypoints.hand_e[0, 0] > 5 else []  # waypoint 0 as the model wrote it

    waypoints = plan(check=check)
    assert waypoints.source["repairs"] == 1
    assert records(tmp_path)[1].verdict == ["The hand is out of reach."]


def test_reply_is_recorded_even_if_the_check_breaks(plan, server, tmp_path):
    with pytest.raises(ZeroDivisionError):
        plan(check=lambda request, waypoints: 1 / 0)
    assert records(tmp_path)[-1].reply and "not judged" in records(tmp_path)[-1].verdict[0]


# --- endpoints that fail --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("behaviours", [["429", "429"], ["500"], ["503", "500"], ["drop", "429"]])
def test_passing_failures_are_retried_counted_and_recorded(plan, server, tmp_path, behaviours):
    server.misbehave("keypoints", *behaviours)
    assert plan().source["retries"] == len(behaviours)
    failed = records(tmp_path)[: len(behaviours)]
    assert [r.attempt for r in failed] == list(range(len(behaviours)))
    assert all(r.reply is None and r.tokens_in is None and server.url in r.verdict[0] for r in failed)
    assert records(tmp_path)[len(behaviours)].attempt == len(behaviours)


def test_retry_waits_as_long_as_the_endpoint_asks(plan, server):
    server.misbehave("keypoints", Behaviour(status=429, retry_after="0.3"))
    start = time.monotonic()
    plan()
    assert time.monotonic() - start > 0.3


def test_endpoint_that_asks_for_too_long_a_wait_is_given_up(plan, server):
    server.misbehave("keypoints", Behaviour(status=429, retry_after="3600"))
    with pytest.raises(
        EndpointError, match="status 429 .simulated 429.*lower the concurrency.*Gave up after 1 attempts"
    ):
        plan()


def test_waits_double_up_to_the_longest(server):
    from scaffoldlab.planners.meter import Meter

    meter = Meter(None, None, options(server, backoff_s=1.0, retries=10, max_wait_s=5.0))
    error = EndpointError("down", retryable=True)
    for attempt, longest in enumerate((1, 2, 4, 5, 5)):
        assert 0.75 * longest <= meter._wait(error, attempt) <= longest
    assert meter._wait(error, 10) is None and meter._wait(EndpointError("no"), 0) is None
    assert meter._wait(EndpointError("slow", retryable=True, retry_after=3.0), 0) == 3.0


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ("401", r"status 401 .*Set SCAFFOLDLAB_API_KEY"),
        ("404", r"status 404 .*serves model 'gemini-loopback'"),
        (Behaviour(status=400), r"status 400 .*takes images"),
        (Behaviour(status=429, body='{"error": {"code": "insufficient_quota", "message": "pay"}}'), r"status 429 .pay"),
        ("page", r"no chat completion .an HTML page titled 'Sign in'.*usually ends in /v1"),
        ("no_body", r"no chat completion .empty"),
        (Behaviour(body='{"choices": []}'), r"no chat completion"),
        (Behaviour(body='{"error": {"message": "overloaded"}}'), r"no chat completion .overloaded"),
    ],
)
def test_failure_that_stays_is_not_retried(plan, server, tmp_path, behaviour, message):
    server.misbehave("keypoints", behaviour)
    with pytest.raises(
        EndpointError, match=f"move_apple, plan 0, keypoints query: {server.url}: (the answer is )?{message}"
    ):
        plan()
    assert len(server.requests) == len(records(tmp_path)) == 1
    assert plan().source["retries"] == 0


def test_failure_that_does_not_pass_is_given_up_with_the_count(plan, server, tmp_path):
    server.misbehave("keypoints", *["500"] * 3)
    with pytest.raises(EndpointError, match=r"status 500 .simulated 500.*Gave up after 3 attempts"):
        plan(retries=2)
    assert len(records(tmp_path)) == 3


def test_slow_endpoint_is_a_time_out_then_a_retry(plan, server, tmp_path):
    server.misbehave("keypoints", Behaviour(sleep=0.6))
    assert plan(timeout_s=0.2).source["retries"] == 1
    assert "no answer within 0.2 s" in records(tmp_path)[0].verdict[0]


def test_endpoint_that_is_down_is_named():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
    planner = vlm_planner(VlmSettings(base_url=url, model="m", retries=1, backoff_s=0.001))
    with pytest.raises(EndpointError, match=f"{url}: no connection .*Connection refused.*Gave up after 2 attempts"):
        planner.plan(request())


@pytest.mark.parametrize(
    ("content", "text"),
    [([{"type": "text", "text": "["}, {"type": "text", "text": "]"}], "[]"), (None, ""), ("\ud800[]", "?[]")],
)
def test_content_in_parts_or_none_or_broken_is_read(plan, server, tmp_path, content, text):
    body = {"choices": [{"message": {"content": content}, "finish_reason": None}], "usage": {"prompt_tokens": "many"}}
    server.misbehave("keypoints", Behaviour(body=json.dumps(body)))
    plan()
    first = records(tmp_path)[0]
    assert first.reply == text and first.tokens_in is None


def test_thinking_tokens_count_as_output(plan, server, tmp_path):
    usage = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 1120}
    server.misbehave("keypoints", Behaviour(extra={"usage": usage}))
    waypoints = plan(price_in_usd=0.30, price_out_usd=2.50)
    first = records(tmp_path)[0]
    assert (first.tokens_in, first.tokens_out) == (100, 1020)
    assert first.cost_usd == pytest.approx(100 * 0.30e-6 + 1020 * 2.50e-6)
    assert waypoints.source["cost_usd"] == pytest.approx(sum(r.cost_usd for r in records(tmp_path)))


def test_unknown_price_is_no_cost(plan, tmp_path):
    assert plan().source["cost_usd"] is None and records(tmp_path)[0].cost_usd is None


# --- endpoint, model and key ----------------------------------------------------------------------------------------


def test_environment_chooses_endpoint_and_model(server, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    monkeypatch.setenv("SCAFFOLDLAB_BASE_URL", server.url)
    monkeypatch.setenv("SCAFFOLDLAB_MODEL", "qwen3-vl")
    planner = vlm_planner(VlmSettings())
    assert planner.points.name == "qwen"
    assert planner.plan(request()).source["model"] == "qwen3-vl"


def test_local_endpoint_needs_no_key_and_openai_does(server, monkeypatch):
    monkeypatch.delenv("SCAFFOLDLAB_API_KEY")
    vlm_planner(options(server)).plan(request())
    assert server.requests[0].headers["authorization"] == "Bearer none"
    with pytest.raises(ScaffoldError, match="there is no endpoint.*SCAFFOLDLAB_BASE_URL.*SCAFFOLDLAB_API_KEY"):
        vlm_planner(VlmSettings(model="gpt-x"))
    monkeypatch.setenv("OPENAI_API_KEY", "other-key-123")
    vlm_planner(options(server)).plan(request(index=1))
    assert server.requests[-1].headers["authorization"] == "Bearer other-key-123"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": None}, "there is no model.*SCAFFOLDLAB_MODEL"),
        ({"base_url": "localhost:8000"}, "base URL is 'localhost:8000'; allowed: http://"),
        ({"points": "gemeni"}, "Did you mean 'gemini'"),
        ({"concurrency": 0}, "concurrency is 0; allowed: 1 or more"),
        ({"batch": 0}, "batch is 0; allowed: 1 or more"),
        ({"batch": 2, "points": "molmo"}, "batch is 2, but points of the molmo convention .* allowed: 1"),
        ({"cost_cap_usd": 1.0}, "price of a token is unknown.*token_cap"),
        ({"keypoint_parameters": {"temperature": float("nan")}}, "keypoint_parameters must be JSON values"),
    ],
)
def test_wrong_setting_is_refused_at_once(server, changes, message):
    with pytest.raises(ScaffoldError, match=message):
        vlm_planner(options(server, **changes))


def test_settings_are_plain_data(server):
    settings = options(server)
    assert pickle.loads(pickle.dumps(settings)) == settings and KEY not in repr(settings)


@pytest.mark.parametrize("key", [KEY, f"{KEY}\n"])
def test_key_is_in_no_message_log_or_file(tmp_path, caplog, capfd, monkeypatch, key):
    monkeypatch.setenv("SCAFFOLDLAB_API_KEY", key)
    caplog.set_level(logging.DEBUG)
    with VlmServer(colours=COLOURS, key="another") as server:  # echoes the key in its refusal, as OpenAI does
        planner = vlm_planner(options(server), ledger=tmp_path / "ledger.jsonl")
        with pytest.raises(EndpointError, match=r"Incorrect API key provided: \[key\]") as refused:
            planner.plan(request())
    with VlmServer(colours=COLOURS, key=KEY) as server:
        server.misbehave("keypoints", Behaviour(rewrite=lambda text: f"{KEY} {text}"))
        server.misbehave("trajectory", Behaviour(rewrite=lambda text: f"Your key is {KEY}."))
        server.misbehave("trajectory", Behaviour(status=500, body=f"<html><title>{KEY}</title></html>"))
        planner = vlm_planner(options(server), ledger=tmp_path / "ledger.jsonl")
        waypoints = planner.plan(request())
    everything = [p.read_text() for p in tmp_path.rglob("*") if p.is_file()]
    everything += [caplog.text, *capfd.readouterr(), "".join(traceback.format_exception(refused.value))]
    everything += [repr(waypoints), repr(planner), repr(planner.__dict__)]
    assert len(everything[0]) > 1000 and "[key]" in everything[0]
    assert not any(KEY in text for text in everything)


def test_impossible_key_is_refused_without_showing_it(server, monkeypatch):
    monkeypatch.setenv("SCAFFOLDLAB_API_KEY", "sk-töp-secret")
    with pytest.raises(ScaffoldError, match="characters that no key has") as error:
        vlm_planner(options(server))
    assert "secret" not in str(error.value)


def test_password_in_the_url_is_not_recorded(server, tmp_path):
    url = server.url.replace("://", "://user:password@")
    vlm_planner(options(server, base_url=url), ledger=tmp_path / "ledger.jsonl").plan(request())
    assert "password" not in (tmp_path / "ledger.jsonl").read_text()


# --- threads, budget, resuming --------------------------------------------------------------------------------------


def test_threads_share_a_planner_within_the_concurrency(server, tmp_path):
    for kind in ("keypoints", "trajectory"):
        server.misbehave(kind, *[Behaviour(sleep=0.03)] * 12)
    planner = vlm_planner(options(server, concurrency=3), ledger=tmp_path / "ledger.jsonl")
    with ThreadPoolExecutor(12) as pool:
        plans = list(pool.map(lambda i: planner.plan(request(index=i)), range(12)))
    assert 1 < server.peak <= 3
    book = {r.id: r.index for r in records(tmp_path)}
    assert [{book[call] for call in w.source["calls"]} for w in plans] == [{i} for i in range(12)]


def test_token_cap_stops_before_the_next_call_and_counts_what_was_paid_before(plan, server, tmp_path):
    plan()
    used = sum(r.tokens_in + r.tokens_out for r in records(tmp_path))
    count = len(server.requests)
    with pytest.raises(
        BudgetError, match=rf"ledger.jsonl: the budget is used up: {used} of {used} tokens. Raise token_cap"
    ):
        plan(request(index=1), token_cap=used)
    assert len(server.requests) == count
    assert plan(token_cap=used).source["repairs"] == 0  # recorded: costs nothing
    plan(request(index=1), token_cap=used + 10_000)


def test_cost_cap_stops_in_the_middle_of_a_plan(plan, server, tmp_path):
    with pytest.raises(BudgetError, match=r"0.3250 of 0.3 USD. Raise cost_cap_usd"):
        plan(price_in_usd=1000.0, price_out_usd=0.0, cost_cap_usd=0.3)
    assert server.kinds() == ["keypoints"] and len(records(tmp_path)) == 1


def test_cap_needs_token_counts(plan, server):
    server.misbehave("keypoints", "no_usage")
    with pytest.raises(BudgetError, match="1 replies came without a token count"):
        plan(token_cap=1_000_000)


def test_accepted_calls_are_not_made_again(plan, server, tmp_path):
    server.misbehave("trajectory", "short")
    first, count = plan(), len(server.requests)
    lines = (tmp_path / "ledger.jsonl").read_bytes()
    again = plan()
    assert len(server.requests) == count == 3 and (tmp_path / "ledger.jsonl").read_bytes() == lines
    np.testing.assert_array_equal(again.keypoints_e, first.keypoints_e)
    assert again.source == first.source
    plan(request(index=1))  # another plan, though the prompt is the same, is another sample
    assert len(server.requests) == count + 2


def test_killed_run_is_continued_where_it_stopped(plan, server, tmp_path):
    first = plan()
    path = tmp_path / "ledger.jsonl"
    pointing, trajectory = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(pointing + trajectory[:100])  # killed in the middle of the second record
    np.testing.assert_array_equal(plan().keypoints_e, first.keypoints_e)
    assert server.kinds() == ["keypoints", "trajectory", "trajectory"]
    assert len(records(tmp_path)) == 2


def cut(path, count, rest=0):
    """Leaves the first records of a ledger and some bytes of the next one, as a run that is killed does."""
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:count]) + lines[count][:rest])


@pytest.mark.parametrize("rest", [0, 100], ids=["before the repair", "while it is recorded"])
@pytest.mark.parametrize("kind", ["keypoints", "trajectory"])
def test_run_killed_after_a_rejected_reply_goes_on_with_its_repair(plan, server, tmp_path, kind, rest):
    server.misbehave(kind, "nan")
    first = plan()
    count = len(server.requests)
    paid = server.kinds().index(kind) + 1
    cut(tmp_path / "ledger.jsonl", paid, rest)
    again = plan()
    np.testing.assert_array_equal(again.keypoints_e, first.keypoints_e)
    assert server.kinds()[count:] == server.kinds()[paid:count]
    assert "got nan" in server.requests[count].body["messages"][-1]["content"]
    rejected, repaired = (r for r in records(tmp_path) if r.kind == kind)
    assert repaired.repairs == rejected.id and again.source["repairs"] == 1
    plan()
    assert len(server.requests) == count + len(server.kinds()[paid:count])


def test_several_repairs_go_on_after_the_last_one_and_begin_anew_when_all_were_rejected(plan, server, tmp_path):
    server.misbehave("trajectory", "short", "nan", "strings")
    with pytest.raises(ScaffoldError, match="no usable answer to the trajectory query in 3 replies"):
        plan(repairs=2)
    cut(tmp_path / "ledger.jsonl", 3)  # keypoints, and the first two of three
    server.requests.clear()
    server.misbehave("trajectory", "empty")
    with pytest.raises(ScaffoldError, match="in 3 replies. The last one: The reply is empty"):
        plan(repairs=2)
    (last,) = server.requests
    assert len(last.body["messages"]) == 5 and "got nan" in last.body["messages"][-1]["content"]
    assert plan(repairs=2).source["repairs"] == 0
    assert len(server.requests) == 2 and len(server.requests[1].body["messages"]) == 1


def test_rejected_reply_is_not_paid_again_when_its_repair_does_not_fit_the_budget_or_gets_no_answer(
    plan, server, tmp_path
):
    plan(request(index=1))
    used = sum(r.tokens_in + r.tokens_out for r in records(tmp_path))
    server.misbehave("keypoints", "nan", "401")
    with pytest.raises(BudgetError):
        plan(token_cap=used + 1)
    with pytest.raises(EndpointError, match="status 401"):
        plan()
    assert plan().source["repairs"] == 1
    assert server.kinds()[2:] == ["keypoints"] * 3 + ["trajectory"]
    assert [len(seen.body["messages"]) for seen in server.requests[2:]] == [1, 3, 3, 1]


def test_reply_that_a_broken_check_left_unjudged_is_judged_when_the_run_goes_on(plan, server, tmp_path):
    with pytest.raises(ZeroDivisionError):
        plan(check=lambda request, waypoints: 1 / 0)
    assert plan().source["repairs"] == plan().source["repairs"] == 0
    assert server.kinds() == ["keypoints", "trajectory"]


def test_recorded_reply_is_judged_by_the_check_of_today(plan, server, tmp_path):
    """A looser check accepts what was rejected; a stricter one sends back what was accepted, with its own reasons."""
    with pytest.raises(ScaffoldError, match="Too slow"):
        plan(check=lambda request, waypoints: ["Too slow."])
    cut(tmp_path / "ledger.jsonl", 2)
    assert plan().source["repairs"] == 0 and len(server.requests) == 3
    with pytest.raises(ScaffoldError, match="Too fast"):
        plan(check=lambda request, waypoints: ["Too fast."])
    assert "Too fast" in server.requests[3].body["messages"][-1]["content"] and len(server.requests) == 4


def test_vote_that_was_rejected_goes_on_with_its_repair(plan, server, tmp_path):
    server.misbehave("trajectory", "ok", "short", "ok", "short")
    first = plan(votes=3)
    assert [(r.sample, r.turn) for r in records(tmp_path) if r.kind == "trajectory"] == [
        (0, 0), (1, 0), (1, 1), (2, 0), (2, 1)
    ]  # fmt: skip
    cut(tmp_path / "ledger.jsonl", 4)  # in the repair of the second vote
    server.requests.clear()
    again = plan(votes=3)
    np.testing.assert_array_equal(again.hand_e, first.hand_e)
    assert server.kinds() == ["trajectory", "keypoints", "trajectory"]
    assert [len(seen.body["messages"]) for seen in server.requests] == [3, 1, 1]


def test_batch_that_was_rejected_goes_on_with_its_repair(server, tmp_path):
    server.misbehave("keypoints", "empty")
    for _ in range(2):
        planner = vlm_planner(options(server, batch=2), ledger=tmp_path / "ledger.jsonl")
        planner.prepare(several(2))
        if len(server.requests) == 2:
            cut(tmp_path / "ledger.jsonl", 1)
    assert [planner.plan(r).source["repairs"] for r in several(2)] == [1, 1]
    assert server.kinds() == ["keypoints"] * 3 + ["trajectory"] * 2
    assert [len(seen.body["messages"]) for seen in server.requests] == [1, 3, 3, 1, 1]


@pytest.mark.parametrize("rejected", [[], ["nan"]], ids=["the prompt", "a repair"])
def test_killed_process_has_lost_only_the_call_it_was_in(server, plan, tmp_path, rejected):
    """SIGKILL while the model writes the trajectory: what was paid for before is not asked again."""
    server.misbehave("trajectory", *rejected, Behaviour(sleep=30))
    ledger = str(tmp_path / "ledger.jsonl")
    code = f"""
import sys, types
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_planners_vlm import options, request, vlm_planner
vlm_planner(options(types.SimpleNamespace(url={server.url!r})), ledger={ledger!r}).plan(request())
"""
    with subprocess.Popen([sys.executable, "-c", code]) as child:
        deadline = time.monotonic() + 20
        while len(server.requests) < 2 + len(rejected) and time.monotonic() < deadline:
            time.sleep(0.01)
        child.kill()
    assert [r.kind for r in records(tmp_path)] == ["keypoints", *["trajectory"] * len(rejected)]
    plan()
    assert server.kinds() == ["keypoints", *["trajectory"] * (2 + len(rejected))]
    assert server.requests[-1].body["messages"] == server.requests[-2].body["messages"]


# --- replay ---------------------------------------------------------------------------------------------------------


def test_replay_repeats_the_plan_without_endpoint_or_key(plan, server, tmp_path, monkeypatch):
    server.misbehave("keypoints", "500", "outside")
    server.misbehave("trajectory", "nan")
    first = plan(model="odd-model", points="qwen", keypoint_parameters={"temperature": 0.1, "seed": 3})
    monkeypatch.delenv("SCAFFOLDLAB_API_KEY")
    count, before = len(server.requests), (tmp_path / "ledger.jsonl").read_bytes()
    planner = replay_planner(tmp_path / "ledger.jsonl")
    again = planner.plan(request())
    np.testing.assert_array_equal(again.keypoints_e, first.keypoints_e)
    np.testing.assert_array_equal(again.pixels, first.pixels)
    assert again.source == first.source | {"planner": "replay"} and planner.name == "replay"
    assert len(server.requests) == count and (tmp_path / "ledger.jsonl").read_bytes() == before


def test_replay_answers_another_renderers_picture_and_says_so(plan, tmp_path):
    first = plan()
    again = replay_planner(tmp_path / "ledger.jsonl").plan(request(image=picture(shade=121)))
    np.testing.assert_array_equal(again.keypoints_e, first.keypoints_e)
    assert again.source == first.source | {"planner": "replay", "prompt_differs": True}


@pytest.mark.parametrize("changes", [{"index": 5}, {"seed": 8}, {"task": "open_drawer"}])
def test_replay_of_what_was_not_recorded_names_the_missing_call(plan, tmp_path, changes):
    plan()
    asked = request(image=picture(shade=121), **changes)
    with pytest.raises(
        EndpointError,
        match=rf"no recorded reply to the keypoints query, turn 0, of plan {asked.index} of task '{asked.task}'",
    ):
        replay_planner(tmp_path / "ledger.jsonl").plan(asked)


def test_replay_under_a_stricter_check_says_why_a_repair_is_missing(plan, tmp_path):
    plan()
    planner = replay_planner(tmp_path / "ledger.jsonl", check=lambda request, waypoints: ["Too fast."])
    with pytest.raises(EndpointError, match="trajectory query, turn 1, .*rejected now: .*Too fast."):
        planner.plan(request())


def test_replay_needs_replies_of_one_model(plan, tmp_path):
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(ScaffoldError, match="holds no replies"):
        replay_planner(tmp_path / "empty.jsonl")
    first = plan()
    plan(request(index=1), model="qwen3-vl")
    with pytest.raises(ScaffoldError, match=r"several models \(gemini-loopback, qwen3-vl\)"):
        replay_planner(tmp_path / "ledger.jsonl")
    settings = VlmSettings(model="gemini-loopback")
    again = replay_planner(tmp_path / "ledger.jsonl", settings=settings).plan(request())
    np.testing.assert_array_equal(again.hand_e, first.hand_e)


# --- package --------------------------------------------------------------------------------------------------------


def test_importing_the_planners_imports_no_openai():
    code = "import scaffoldlab.planners.vlm, scaffoldlab.planners.replay, sys; assert 'openai' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_server_by_hand_prints_what_to_export():
    script = Path(__file__).parents[1] / "vlm_server.py"
    command = [
        sys.executable,
        str(script),
        "--port",
        "0",
        "--colour",
        "apple=200,20,20",
        "--misbehave",
        "keypoints:500",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        line = process.stdout.readline()
        process.terminate()
    assert re.match(r"export SCAFFOLDLAB_BASE_URL=http://127.0.0.1:\d+/v1 SCAFFOLDLAB_MODEL=gemini-loopback", line)
