"""Training with ``scaffoldlab train``: it improves, survives kill -9, and its checkpoints are checked."""

import json
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from conftest import ROOT

DRAWER = ("--task", "open_drawer", "--noise", "0.03")
ENVS = 128


def scaffoldlab(*words) -> list[str]:
    return [sys.executable, "-m", "scaffoldlab", *map(str, words)]


def call(*words) -> subprocess.CompletedProcess[str]:
    return subprocess.run(scaffoldlab(*words), capture_output=True, text=True, timeout=300, cwd=ROOT)


def state_of(folder: Path) -> dict:
    return json.loads((folder / "training.json").read_text())


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run of Open Drawer under noise that was killed after its first checkpoint, interrupted after the next."""
    folder = tmp_path_factory.mktemp("training") / "run"
    train = scaffoldlab("train", *DRAWER, "--num-envs", ENVS, "--minutes", 10, "--out", folder)
    endless = [*train, "--target", "1.1"]  # 100 % on the validation states may come before it is stopped
    killed = _stop(endless, signal.SIGKILL, folder, iteration=15)
    interrupted = _stop(endless, signal.SIGINT, folder, iteration=30)
    assert interrupted["curve"][:15] == killed["curve"]
    done = subprocess.run([*train, "--target", "0.7"], capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    shutil.copy(folder / "training.json", folder / "resumed.json")
    assert state_of(folder)["curve"][:30] == interrupted["curve"][:30]
    return folder


def _stop(command: list[str], sign: signal.Signals, folder: Path, *, iteration: int) -> dict:
    """Runs a training until a checkpoint and stops it; what it has saved."""
    # What starts the tests may have told its children to ignore Ctrl-C.
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, preexec_fn=heed) as process:
        end = time.monotonic() + 120
        while not (folder / "training.json").is_file() or state_of(folder)["iteration"] < iteration:
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.05)
        process.send_signal(sign)
    assert process.returncode == (130 if sign == signal.SIGINT else -sign)
    state = state_of(folder)
    assert not state["finished"] and state["iteration"] == iteration
    return state


def test_training_that_was_killed_goes_on_where_it_was(run):
    state = state_of(run)
    steps = [point["env_steps"] for point in state["curve"]]
    assert state["finished"] and steps == [ENVS * 24 * (i + 1) for i in range(len(steps))] and len(steps) > 15
    seconds = [point["wall_seconds"] for point in state["curve"]]
    assert seconds == sorted(seconds)  # the clock of the first part counts
    assert (run / "model_best.pt").is_file() and not list(run.glob("*.tmp"))


def test_short_training_beats_following_the_plan_with_an_open_hand(run, tmp_path):
    done = call(
        "evaluate", *DRAWER, "--checkpoint", run / "model_best.pt", "--episodes", 32, "--no-film",
        "--out", tmp_path / "report",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "report/metrics.json").read_text())
    print({k: metrics[k] for k in ("success_rate", "zero_action_success_rate", "best_timed_close_success_rate")})
    assert metrics["success_rate"] >= metrics["zero_action_success_rate"] + 0.2
    assert (tmp_path / "report/index.html").stat().st_size > 80_000  # the film: test_experiment.py


def test_full_disk_ends_training_with_a_message_and_keeps_what_was_finished(small_disk):
    small = ("--num-envs", 8, "agent.actor.hidden_dims=[8]", "agent.critic.hidden_dims=[8]")
    folder = small_disk / "run"
    done = call("train", *DRAWER, "--out", folder, *small)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "No space left on device" in done.stderr and "Free space on that disk" in done.stderr
    assert not list(folder.glob("*.tmp"))
    state = state_of(folder)  # the checkpoints before it are whole: the disk held some of them
    torch.load(folder / "resume.pt", weights_only=False)
    assert state["iteration"] >= 15 and not state["finished"]
