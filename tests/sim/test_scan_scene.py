"""A scanned scene in simulation: its objects stay where they are, and a new task over it trains at once."""

import json
import subprocess
import sys

import numpy as np
import pytest
import yaml

from conftest import ROOT
from desks import OBJECTS, make_desk
from scaffoldlab.files import write_atomic
from scaffoldlab.planners.making import scripted_library
from scaffoldlab.scan.captures.capture import Capture
from scaffoldlab.scan.render import renderer_of
from scaffoldlab.scan.scenes.new_task import write_task
from scaffoldlab.scan.scenes.objects import find_objects
from scaffoldlab.scan.scenes.scene import scan_scene, write_scene
from scaffoldlab.scan.scenes.settle import settle_scene
from scaffoldlab.specs.models import SceneSpec, load_task, read_yaml

RENDER = """
import sys
import numpy as np
from scaffoldlab.planners.making import scripted_library
from scaffoldlab.specs.models import load_task
from scaffoldlab.tasks.rendering import render_initial_states

library = scripted_library(load_task("crooked"), count=1, seed=0)
(image,) = render_initial_states("crooked", library, device="cpu")
np.save(sys.argv[1], image.depth)
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder of SCAFFOLDLAB_PATH with a scanned desk and a task over it."""
    folder = tmp_path_factory.mktemp("scanned")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCAFFOLDLAB_PATH", str(folder))
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        desk = make_desk(count=6, size=(320, 240), noise=0.002, shelf=True, pose_noise=(0.002, 0.5))
        (folder / "capture").mkdir()
        capture = Capture(folder / "capture", desk.frames, 0.001, "known", True)
        scene = settle_scene(scan_scene(capture, find_objects([OBJECTS / name for name in desk.objects])))
        write_scene(scene, folder / "assets/scenes/desk", name="desk", usd_folder="scenes/desk")
        write_task("desk", instruction="Move the apple to a free place.", name="tidy_desk")
        yield folder
    load_task.cache_clear()


def test_objects_stay_where_they_were_scanned(root):
    objects = json.loads((root / "assets/scenes/desk/report/report.json").read_text())["objects"]
    for name, found in objects.items():
        assert found["settled"]["displacement"] < 0.004, name
        assert found["settled"]["tilt_deg"] < 2, name


def test_simulation_renders_what_the_real_camera_sees(root, tmp_path):
    text = (root / "assets/scenes/desk/scene.yaml").read_text()
    spec = yaml.safe_load(text)
    fx, fy, cx, cy = spec["camera"]["intrinsics"]
    spec["camera"]["intrinsics"] = [fx, 1.1 * fy, cx + 17, cy - 9]  # neither centred nor square
    write_atomic(root / "assets/scenes/crooked/scene.yaml", yaml.safe_dump(spec))
    write_task("crooked", instruction="Move the apple to a free place.", name="crooked")
    done = subprocess.run([sys.executable, "-c", RENDER, tmp_path / "depth.npy"], capture_output=True, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]
    simulated = np.load(tmp_path / "depth.npy")
    camera = read_yaml(root / "assets/scenes/crooked/scene.yaml", SceneSpec, "crooked").camera.camera()
    background = {"background": root / "assets/scenes/desk/background.usda"}
    ours = renderer_of(background, {"background": np.eye(4)}).render(camera).depth
    both = (ours > 0) & (simulated > 0)
    assert both.sum() > 0.9 * (ours > 0).sum() > 1000
    assert np.median(np.abs(simulated - ours)[both]) < 0.0005  # half a pixel beside is 1 mm
    assert both.sum() / ((ours > 0) | (simulated > 0)).sum() > 0.9


def test_new_task_is_planned_on_its_picture(root, tmp_path):
    done = call("plan", "--task", "tidy_desk", "--num-plans", 1, "--out", tmp_path, "--device", "cpu")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list(tmp_path.rglob("plan_*.png"))) == 1


def test_new_task_trains_at_once(root, tmp_path):
    """On plans for 64 states, as by default; validation on as many would take eight times as many envs."""
    plans = scripted_library(load_task("tidy_desk"), count=64, seed=0)
    plans.save(tmp_path / "train.plans.npz")
    plans.subset([0]).save(tmp_path / "validation.plans.npz")
    done = call(
        "train", "--task", "tidy_desk", "--num-envs", 8, "--iterations", 1, "--plans", tmp_path / "train.plans.npz",
        "--validation", tmp_path / "validation.plans.npz", "--out", tmp_path / "run",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    curve = json.loads((tmp_path / "run/training.json").read_text())["curve"]
    assert len(curve) > 0 and all(np.isfinite(point["tracking_error_m"]) for point in curve)


def call(*words) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "scaffoldlab", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=280, cwd=ROOT)
