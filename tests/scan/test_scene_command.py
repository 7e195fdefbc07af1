"""``scaffoldlab scan scene`` and ``new-task`` as a user types them, on a capture on disk whose truth is known."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from captures import Faults, tabletop, write_capture
from scaffoldlab.cli import main
from scaffoldlab.specs.models import load_task
from scaffoldlab.usd.writer import UsdWriter
from shapes import SHAPES

NAMES = ("book", "t_shape")


@pytest.fixture(scope="module")
def truth():
    return tabletop(3, objects=NAMES, count=10, width=240, height=180, distance=0.8, table_size=(0.9, 0.7))


@pytest.fixture(scope="module")
def folder(truth, tmp_path_factory):
    """A capture with the faults of a real camera, the objects' files, and the folder of SCAFFOLDLAB_PATH."""
    root = tmp_path_factory.mktemp("user")
    failures = {"book": {2: "identity", 4: "nan"}, "t_shape": {3: "jump", 5: "missing"}}
    faults = Faults(sigma=0.002, dropout=0.02, edge=1)
    write_capture(truth, root / "capture", layout="foundationpose", faults=faults, failures=failures)
    for name in NAMES:
        folder = root / f"assets/objects/{name}"
        folder.mkdir(parents=True)
        usd = UsdWriter(folder / f"{name}.usda", license="")
        usd.body("", mass=0.3)
        usd.friction("skin", static=1.0, dynamic=1.0, combine="average")
        usd.collider("collider", "convex", mesh=SHAPES[name]().convex_hull, friction="skin")
        usd.surface("grey", color=(0.3, 0.3, 0.3))
        usd.visual("skin", SHAPES[name](), surface="grey")
        usd.save()
    return root


@pytest.fixture
def scaffoldlab(folder, monkeypatch, capfd):
    """Runs a command; gives its exit code and what it printed."""
    monkeypatch.setenv("SCAFFOLDLAB_PATH", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    monkeypatch.setattr("scaffoldlab.scan.scenes.report.TURN_PICTURES", 3)
    monkeypatch.setattr("scaffoldlab.scan.scenes.report.PICTURES", 1)

    def run(*words):
        code = main([str(word) for word in words])
        return code, "".join(capfd.readouterr())

    return run


def test_scene_and_task_come_out_as_they_went_in(folder, truth, scaffoldlab):
    out = folder / "assets/scenes/desk"
    objects = [folder / f"assets/objects/{name}" for name in NAMES]
    code, text = scaffoldlab("scan", "scene", folder / "capture", "--objects", *objects, "--out", out, "--no-settle")
    assert code == 0, text
    assert "book: pose: recorded poses, 8 used, 2 dropped" in text and "report/index.html" in text
    report = json.loads((out / "report/report.json").read_text())
    capture_to_env = np.array(report["capture_to_env"])
    table = capture_to_env @ truth.pose_we
    assert table[2, 3] == pytest.approx(report["table"]["height"], abs=0.002)
    assert table[2, 2] > np.cos(np.radians(0.5))
    assert sorted(report["table"]["size"]) == pytest.approx([0.7, 0.9], abs=0.03)
    for name, found in report["objects"].items():
        pose = capture_to_env @ truth.objects[name][1]
        turn = Rotation.from_quat(found["quat_xyzw"]).inv() * Rotation.from_matrix(pose[:3, :3])
        assert np.linalg.norm(pose[:3, 3] - found["position"]) < 0.003, name
        assert np.degrees(turn.magnitude()) < 1, name
        assert found["reprojection"]["contour_px"] < 2 and found["reprojection"]["centroid_px"] < 2

    code, text = scaffoldlab("scan", "new-task", "desk", "--instruction", "Put the t shape on the book.")
    assert code == 0, text
    assert "scaffoldlab plan --task move_t_shape_desk" in text
    load_task.cache_clear()
    assert load_task("move_t_shape_desk").task.keypoint_names == ("t shape", "book")
    load_task.cache_clear()

    code, text = scaffoldlab("scan", "scene", folder / "capture", "--objects", *objects, "--out", out)
    assert code == 1 and "there is a folder with files already" in text


def test_mistakes_are_told_without_a_traceback(folder, scaffoldlab):
    out = folder / "assets/scenes/other"
    book = folder / "assets/objects/book"
    code, text = scaffoldlab("scan", "scene", folder / "capture", "--objects", book, "--out", out, "--no-settle")
    assert code == 1 and "unknown object 't_shape'" in text and "Traceback" not in text
    code, text = scaffoldlab("scan", "scene", folder / "none", "--objects", book, "--out", out)
    assert code == 1 and "no such folder" in text
    code, text = scaffoldlab("scan", "scene", folder / "capture", "--objects", folder, "--out", out)
    assert code == 1 and "no object; allowed" in text
    code, text = scaffoldlab("scan", "scene", folder / "capture", "--objects", book, "--out", out, "--voxel", "0")
    assert code == 1 and "--voxel is 0.0; allowed: above 0" in text
    assert not out.exists()


@pytest.fixture
def spoil(folder, tmp_path):
    """Copies the capture, with masks of nothing and poses of nowhere for some of its objects."""

    def make(*, masks=(), poses=()):
        capture = shutil.copytree(folder / "capture", tmp_path / "capture")
        for path in (p for name in masks for p in (capture / "masks" / name).iterdir()):
            Image.new("L", Image.open(path).size).save(path)
        for path in (p for name in poses for p in (capture / "ob_in_cam" / name).iterdir()):
            np.savetxt(path, np.eye(4))
        return capture

    return make


def test_masks_and_poses_of_an_object_that_is_left_out_do_not_matter(folder, spoil, scaffoldlab):
    capture, out = spoil(masks=["t_shape"], poses=["t_shape"]), folder / "assets/scenes/one"
    command = ["scan", "scene", capture, "--objects", folder / "assets/objects/book", "--out", out, "--no-settle"]
    code, text = scaffoldlab(*command)
    assert code == 1 and "masks of t_shape: 10 of 10" in text and "poses of t_shape: 0 usable" in text
    code, text = scaffoldlab(*command, "--without", "t_shape")
    assert code == 0, text
    report = json.loads((out / "report/report.json").read_text())
    assert "of t_shape" not in text and list(report["objects"]) == ["book"]


def test_an_object_has_its_place_from_poses_or_from_masks(folder, truth, spoil, scaffoldlab):
    capture, out = spoil(masks=["t_shape"], poses=["book"]), folder / "assets/scenes/half"
    objects = [folder / f"assets/objects/{name}" for name in NAMES]
    code, text = scaffoldlab("scan", "scene", capture, "--objects", *objects, "--out", out, "--no-settle")
    assert code == 0, text
    assert "book: pose: ICP stand-in" in text and "t_shape: pose: recorded poses" in text
    report = json.loads((out / "report/report.json").read_text())
    for name, found in report["objects"].items():
        place = np.array(report["capture_to_env"]) @ truth.objects[name][1][:, 3]
        assert np.linalg.norm(place[:3] - found["position"]) < 0.005, name
