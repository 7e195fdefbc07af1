"""A new task over a scanned scene: it loads, its oracle plans it, and what cannot be is refused by name."""

import shutil

import numpy as np
import pytest

from conftest import ROOT
from scaffoldlab.errors import ScaffoldError
from scaffoldlab.files import write_atomic
from scaffoldlab.planners.making import scripted_library
from scaffoldlab.scan.scenes.new_task import write_task
from scaffoldlab.scan.scenes.yaml_text import scene_text
from scaffoldlab.specs.models import AssetSpec, CameraSpec, KeypointSpec, SceneSpec, load_task

PLACES = [(x, y, 0.75) for x in (-0.3, -0.1, 0.1, 0.3) for y in (-0.4, -0.2, 0.0, 0.2, 0.4)]


@pytest.fixture
def desk(extra_root):
    """A scene with an apple, a box and a plate as ``scan scene`` writes it; its background is a table."""
    spec = SceneSpec(
        description="A desk.",
        assets=[
            AssetSpec(name="background", kind="static", usd="objects/table/table.usda"),
            AssetSpec(name="apple", kind="rigid", usd="objects/apple/apple.usda", position=(-0.1, -0.2, 0.7854)),
            AssetSpec(name="box", kind="rigid", usd="objects/box/box.usda", position=(0.1, 0.25, 0.783), roll_deg=90),
            AssetSpec(name="plate", kind="static", usd="objects/plate/plate.usda", position=(0.15, -0.2, 0.75)),
        ],
        camera=CameraSpec(eye=(-1, 0, 1.5), target=(0, 0, 0.75)),
        workspace=((-0.5, -0.8, 0.7), (0.5, 0.8, 1.45)),
        table_height=0.75,
        keypoints=[
            KeypointSpec(name=f"table {i}", body="background", point=place) for i, place in enumerate(PLACES, 1)
        ],
    )
    folder = extra_root / "assets/scenes/desk"
    write_atomic(folder / "scene.yaml", scene_text(spec))
    return folder


def test_task_loads_and_its_oracle_plans_it(desk, extra_root):
    path = write_task("desk", instruction="Move the apple onto the plate.")
    assert path == extra_root / "tasks/move_apple_desk/task.yaml"
    task = load_task("move_apple_desk").task
    assert task.instruction == "Move the apple onto the plate." and task.contact == "apple"
    assert task.keypoint_names == ("apple", "plate")
    assert task.prompt.activity == "move the apple onto the plate"
    library = scripted_library(load_task("move_apple_desk"), count=16, seed=1)
    assert len(library) == 16
    for plan in library.plans:
        carried, plate = plan.keypoints_e[-1]
        assert carried[:2] == pytest.approx(plate[:2], abs=1e-6)
        # The middle of the apple rests half its height above the plate's rim, give or take the rim.
        assert carried[2] - plate[2] == pytest.approx(0.05, abs=0.015)
        assert plan.keypoints_e[:, 0, 2].max() > carried[2] + 0.05


@pytest.mark.parametrize(
    ("instruction", "given", "moved", "goal"),
    [
        ("Move the apple next to the box.", {}, "apple", "table"),
        ("Put the box on the plate.", {}, "box", "plate"),
        ("Put the red one away.", {"moved": "apple"}, "apple", "table"),
        ("Move the apple.", {"goal": "table 20"}, "apple", "table 20"),
        ("Move the apple.", {"goal": "box"}, "apple", "box"),
        ("On the plate, place the apple.", {}, "apple", "plate"),
    ],
)
def test_object_and_goal_follow_from_the_instruction_or_the_options(desk, instruction, given, moved, goal):
    write_task("desk", instruction=instruction, name="my_task", **given)
    task = load_task("my_task").task
    assert task.contact == moved and task.keypoint_names[1].startswith(goal)


def test_free_place_is_free_and_beside_what_is_named(desk):
    write_task("desk", instruction="Move the apple next to the box.", name="my_task")
    point = np.array(load_task("my_task").task.keypoints[1].point)
    box = np.array((0.1, 0.25, 0.75))
    assert 0.08 < np.linalg.norm(point - box) < 0.25
    assert np.linalg.norm(point[:2] - (0.15, -0.2)) > 0.17  # not on the plate


def test_folder_of_a_scene_may_be_given(desk):
    assert write_task(str(desk), instruction="Move the apple.").is_file()


def test_scene_that_tasks_do_not_find_is_refused(desk, tmp_path):
    shutil.copytree(desk, tmp_path / "elsewhere/assets/scenes/other")
    with pytest.raises(ScaffoldError, match=r"tasks do not find this scene\. Set SCAFFOLDLAB_PATH="):
        write_task(str(tmp_path / "elsewhere/assets/scenes/other"), instruction="Move the apple.")
    with pytest.raises(ScaffoldError, match=r"unknown scene 'dusk'\. Did you mean 'desk'"):
        write_task("dusk", instruction="Move the apple.")


@pytest.mark.parametrize(
    ("instruction", "given", "message"),
    [
        ("Tidy up.", {}, r"names none of apple, box\. Say which with --object"),
        ("Move it.", {"moved": "appel"}, r"--object: unknown object 'appel'\. Did you mean 'apple'"),
        ("Move it.", {"moved": "plate"}, r"--object: unknown object 'plate'.*Allowed: apple, box"),
        ("Move the apple.", {"goal": "plat"}, r"--goal: unknown goal 'plat'\. Did you mean 'plate'"),
        ("Move the apple.", {"name": "My Task"}, "allowed: small letters, digits and underscores"),
        ("Move the apple.", {"name": "move_apple"}, "there is a task 'move_apple' already"),
    ],
)
def test_what_cannot_be_is_refused_by_name(desk, extra_root, instruction, given, message):
    with pytest.raises(ScaffoldError, match=message):
        write_task("desk", instruction=instruction, **given)
    assert not (extra_root / "tasks").exists()


def test_task_that_its_oracle_cannot_do_is_taken_back(desk, extra_root):
    text = (desk / "scene.yaml").read_text()
    (desk / "scene.yaml").write_text(text.replace("[0.5, 0.8, 1.45]", "[0.5, 0.8, 0.9]"))
    with pytest.raises(ScaffoldError, match="out of reach"):
        write_task("desk", instruction="Move the apple.")
    assert list((extra_root / "tasks").iterdir()) == []


def test_task_is_replaced_only_when_told(desk):
    write_task("desk", instruction="Move the apple.")
    with pytest.raises(ScaffoldError, match="there is a task 'move_apple_desk' already"):
        write_task("desk", instruction="Move the apple!")
    write_task("desk", instruction="Move the apple!", overwrite=True)
    assert load_task("move_apple_desk").task.instruction == "Move the apple!"
    assert (ROOT / "tasks/move_apple_desk").exists() is False
