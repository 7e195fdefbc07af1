"""The commands as users type them: Isaac Lab's own for the three RL libraries, and planning with a model."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from scaffoldlab.plans.library import PlanLibrary
from vlm_server import Behaviour, VlmServer

ENV_ID = "ScaffoldLab-MoveApple-Allegro"
COLOURS = {"apple": (150, 20, 25), "cutting board": (190, 125, 65)}


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name in ("SCAFFOLDLAB_BASE_URL", "SCAFFOLDLAB_MODEL"):
        monkeypatch.delenv(name, raising=False)


def command(*words) -> list[str]:
    """``isaaclab ...`` or ``scaffoldlab ...`` by the modules of this Python."""
    program, *rest = map(str, words)
    module = {"isaaclab": "isaaclab.cli", "scaffoldlab": "scaffoldlab"}[program]
    code = "import sys; from isaaclab.cli import cli; sys.argv[0] = 'isaaclab'; cli()"
    return [sys.executable, *(["-c", code] if program == "isaaclab" else ["-m", module]), *rest]


def call(*words) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end."""
    return subprocess.run(command(*words), capture_output=True, text=True, timeout=240)


def isaaclab(name, *words):
    done = call("isaaclab", name, *words)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout + done.stderr


def only(pattern: str) -> Path:
    (path,) = Path().glob(pattern)
    return path


# --- Isaac Lab's commands -------------------------------------------------------------------------------------------


def test_tasks_are_listed():
    listed = isaaclab("list_envs", "--keyword", "ScaffoldLab")
    assert ENV_ID in listed and "ScaffoldLab-OpenDrawer-Allegro" in listed


@pytest.mark.parametrize("agent", ["zero_agent", "random_agent"])
def test_agents_run(agent):
    out = isaaclab(agent, "--task", ENV_ID, "--num_envs", 4, "--max_steps", 5, "--device", "cpu")
    assert "Box(-inf, inf, (4, 292)" in out


@pytest.fixture(scope="module")
def plans(tmp_path_factory) -> Path:
    """A small library of the oracle."""
    folder = tmp_path_factory.mktemp("plans")
    done = call("scaffoldlab", "plan", "--task", "move_apple", "--num-plans", 8, "--pictures", 0, "--out", folder)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.plans.npz")
    return path


@pytest.mark.parametrize(
    ("library", "checkpoint", "overrides"),
    [
        ("rsl_rl", "logs/rsl_rl/*/*/model_1.pt", []),
        ("skrl", "logs/skrl/*/*/checkpoints/agent_*.pt", []),
        ("rl_games", "logs/rl_games/*/*/nn/*.pth", ["agent.params.config.minibatch_size=96"]),
    ],
)
def test_each_library_trains_on_a_plan_library_and_plays(plans, library, checkpoint, overrides):
    shared = [
        "--rl_library", library, "--task", ENV_ID, "--num_envs", 16, "--device", "cpu",
        "physics=ovphysx", "presets=cpu", f"env.commands.plan.library={plans}", *overrides,
    ]  # fmt: skip
    isaaclab("train", *shared, "--max_iterations", 2)
    saved = max(Path().glob(checkpoint), key=lambda path: path.stat().st_mtime)
    assert f"library: {plans}" in only(f"logs/{library}/*/*/params/env.yaml").read_text()
    # Playing runs until it is stopped, and writes a line when the checkpoint is in and the first step begins.
    with open("play.log", "w") as log:
        play = subprocess.Popen(
            command("isaaclab", "play", *shared, "--checkpoint", saved), stdout=log, stderr=log,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
    try:
        wait_for(lambda: "Policy playback is running" in Path("play.log").read_text(), play)
        time.sleep(1)  # some steps
        assert play.poll() is None, Path("play.log").read_text()[-2000:]
        assert "Traceback" not in Path("play.log").read_text()
    finally:
        play.kill()
        play.wait()


def wait_for(condition, process, seconds=120.0):
    """Waits until something has happened, as long as the process lives."""
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "the process ended first"
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.05)


# --- planning with a model ------------------------------------------------------------------------------------------


def planning(server, *words):
    return (
        "scaffoldlab", "plan", "--task", "move_apple", "--planner", "vlm", "--base-url", server.url,
        "--model", "gemini-loopback", "--num-plans", 2, "--seed", 5, *words,
    )  # fmt: skip


def test_model_plans_on_the_rendered_picture_and_its_replies_are_replayed_offline():
    with VlmServer(colours=COLOURS) as server:
        done = call(*planning(server, "--out", "vlm"))
        assert done.returncode == 0, done.stderr
        assert sorted(server.kinds()) == ["keypoints"] * 2 + ["trajectory"] * 2
    made = PlanLibrary.load(only("vlm/*.plans.npz"), task="move_apple")
    assert len(made) == 2 and len(list(Path("vlm").glob("*-pictures/plan_*.png"))) == 2
    for plan in made.plans:  # the server found them in the picture, by their colour
        apple, board = plan.keypoints_e[0]
        assert np.linalg.norm(apple - plan.initial_state["apple"][:3]) < 0.05  # its radius is 3.75 cm
        assert np.linalg.norm(board - (0, -0.20, 0.908)) < 0.20  # where the scene has it; it is 30 cm long
    ledger = only("vlm/*.ledger.jsonl")
    done = call(
        "scaffoldlab", "plan", "--task", "move_apple", "--planner", "replay", "--ledger", ledger,
        "--num-plans", 2, "--seed", 5, "--out", "again",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    again = PlanLibrary.load(only("again/*.plans.npz"), task="move_apple")
    for one, other in zip(made.plans, again.plans, strict=True):
        np.testing.assert_array_equal(one.keypoints_e, other.keypoints_e)
        np.testing.assert_array_equal(one.wrist_e, other.wrist_e)


def test_model_names_the_keypoints_of_a_task_and_where_they_are():
    with VlmServer(colours=COLOURS) as server:
        done = call(
            "scaffoldlab", "keypoints", "--task", "move_apple", "--base-url", server.url, "--model", "gemini-loopback",
            "--out", "asked",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert server.kinds() == ["elicitation", "keypoints"]
    apple, board = yaml.safe_load(done.stdout)["keypoints"]
    assert (apple["name"], apple["body"]) == ("apple", "apple") and only("asked/*-keypoints.png").is_file()
    assert (board["name"], board["body"]) == ("cutting board", "cutting_board")
    assert 0.02 < np.linalg.norm(apple["point"]) < 0.05  # on its surface: its radius is 3.75 cm


def test_planning_that_was_killed_goes_on_and_pays_for_no_answer_twice():
    with VlmServer(colours=COLOURS) as server:
        # The second plan's trajectory never comes; until then three calls have been answered.
        server.misbehave("trajectory", "ok", Behaviour(sleep=600))
        words = planning(server, "--out", "vlm", "--concurrency", 1)
        process = subprocess.Popen(command(*words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(lambda: len(server.requests) == 4, process)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert not list(Path("vlm").glob("*.plans.npz"))
        paid = len(only("vlm/*.ledger.jsonl").read_text().splitlines())
        assert call(*words).returncode == 0
        assert server.kinds()[4:] == ["trajectory"]
        records = [json.loads(line) for line in only("vlm/*.ledger.jsonl").read_text().splitlines()]
        assert len(records) == paid + 1
    assert len(PlanLibrary.load(only("vlm/*.plans.npz"), task="move_apple")) == 2
