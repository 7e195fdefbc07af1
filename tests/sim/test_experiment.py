"""A whole experiment as users run it, on a task that any policy solves; export and refinement of what it has made."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import onnx
import pytest
import yaml

from conftest import ROOT, write_yaml
from scaffoldlab.plans import library
from vlm_server import VlmServer

TEACHER, PUPIL = "ours", "2 demonstrations"
EXPERIMENT = {
    "title": "A small one",
    "source": "nowhere",
    "tasks": ["easy_apple"],
    "rows": [
        {"name": TEACHER},
        {"name": PUPIL, "policy": "diffusion", "teacher": TEACHER, "demonstrations": 2, "replan": "scripted"},
    ],
}


def easy(task: dict) -> None:
    """Half as long, and solved as soon as it begins: three iterations give a teacher that succeeds."""
    task["episode_steps"] = 100
    task["success"] = {"near": {"keypoint": "apple", "to": "cutting board", "distance": 5.0}}


def call(*words) -> None:
    """Runs a command to its end."""
    command = [sys.executable, "-m", "scaffoldlab", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Iterator[Path]:
    """Where the experiment has left everything; its task is known as long as the tests run."""
    root = tmp_path_factory.mktemp("project")
    write_yaml(root / "tasks/easy_apple/task.yaml", ROOT / "tasks/move_apple/task.yaml", easy)
    (root / "experiments").mkdir()
    (root / "experiments/small.yaml").write_text(yaml.safe_dump(EXPERIMENT))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCAFFOLDLAB_PATH", str(root))
        patch.setenv("NO_PROXY", "127.0.0.1")
        call("experiment", "small", "--protocol", "smoke", "--device", "cpu", "--out", root / "out")
        yield root / "out"


def made(out: Path, pattern: str) -> list[Path]:
    return sorted((out / "artefacts").glob(pattern))


def test_experiment_plans_trains_imitates_evaluates_and_writes_its_tables(out):
    table = (out / "small/table.md").read_text()
    assert f"| {TEACHER} | 100 ± 0 (100, 100) | 100 | - |" in table and f"| {PUPIL} | 100 ± 0 " in table
    assert {path.name for path in (out / "small").iterdir()} == {"table.md", "table.csv", "plot.png", "failures.html"}
    assert len(made(out, "evaluate-*/index.html")) == 2 and not made(
        out, "evaluate-*/*.mp4"
    )  # a smoke test films nothing
    (policy,) = made(out, "imitate-*/policy.pt")
    measured = [json.loads(path.read_text()) for path in made(out, "evaluate-*/metrics.json")]
    (pupil,) = (m for m in measured if m["checkpoint"] == str(policy))
    assert pupil["replanned_success_rate"] == 1


def test_evaluation_is_filmed(out, tmp_path):
    """Two episodes of 100 steps: a picture at the start and every fourth step, side by side, 1280 pixels wide."""
    (checkpoint,) = made(out, "train-*/model_best.pt")
    call(
        "evaluate", "--task", "easy_apple", "--checkpoint", checkpoint, "--episodes", 2, "--device", "cpu",
        "--out", tmp_path,
    )  # fmt: skip
    reader = imageio_ffmpeg.read_frames(str(tmp_path / "episodes.mp4"))
    width, height = next(reader)["size"]
    frames = [np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in reader]
    assert (width, height) == (1280, 374) and len(frames) == 1 + 96 // 4
    first, last = (frame[52:340].astype(float) for frame in (frames[0], frames[-1]))  # the tiles, without captions
    assert first.std() > 20 and np.abs(last - first).max() > 60  # it shows something, and something moves
    assert (tmp_path / "index.html").stat().st_size > 100_000


def test_policy_is_exported(out, tmp_path):
    (checkpoint,) = made(out, "train-*/model_best.pt")
    call("export", "--task", "easy_apple", "--checkpoint", checkpoint, "--device", "cpu", "--out", tmp_path / "p.onnx")
    onnx.checker.check_model(onnx.load(tmp_path / "p.onnx"))


def test_model_is_shown_the_plans_that_the_policy_carried_out_well(out, tmp_path):
    (checkpoint,) = made(out, "train-*/model_best.pt")
    (first,) = made(out, "plan-*/*-train1.plans.npz")
    with VlmServer(colours={"apple": (150, 20, 25), "cutting board": (190, 125, 65)}) as server:
        call(
            "refine", "--task", "easy_apple", "--checkpoint", checkpoint, "--plans", f"{first},train2", "--rounds", 1,
            "--num-plans", 2, "--pictures", 2, "--base-url", server.url, "--model", "gemini-loopback",
            "--device", "cpu", "--out", tmp_path, "env.commands.plan.beta=10",
        )  # fmt: skip
        assert sorted(server.kinds()) == ["keypoints"] * 2 + ["trajectory"] * 2
        shown = [str(seen.body["messages"]) for seen in server.requests if seen.kind == "trajectory"]
    assert all(text.count("A trajectory that succeeded before") == 3 for text in shown)
    assert json.loads((tmp_path / "round_0/round.json").read_text())["success_rate"] == 1
    assert len(library.PlanLibrary.load(tmp_path / "round_1/library.plans.npz", task="easy_apple")) == 2
    assert json.loads((tmp_path / "refine.json").read_text())["overrides"] == ["env.commands.plan.beta=10"]
