"""Pictures of initial states: number i shows state i, whether or not the oracle has a plan for it."""

import sys
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
from test_making import RED, WOOD, kitchen_picture

from scaffoldlab.cli import demo, main, refine
from scaffoldlab.planners.making import scripted_library, still_library
from scaffoldlab.planners.refine import Outcome
from scaffoldlab.plans import draw
from scaffoldlab.plans.library import PlanLibrary
from scaffoldlab.specs.initial_state import sample_initial_state
from scaffoldlab.specs.models import load_task
from vlm_server import VlmServer

TASK, COUNT, SEED = "high_hand", 8, 0


@pytest.fixture(autouse=True)
def gaps(write_task, monkeypatch, tmp_path):
    """A task whose hand may start above the workspace, which ends at 1.60 m: the oracle has no plan from there."""
    monkeypatch.chdir(tmp_path)
    write_task(TASK, lambda data: data["initial_state"]["hand"].update(z=[1.45, 1.70]))
    missing = sorted(int(i) for i in scripted_library(load_task(TASK), count=COUNT, seed=SEED).header["failures"])
    assert missing and missing[0] < COUNT - len(missing)  # some states after a gap have plans
    return missing


@pytest.fixture
def rendered(monkeypatch):
    """Renders without a simulator; the numbers of the states that were rendered."""
    numbers = []

    def render_initial_states(task, library, *, on_picture, **_):
        shown = [(plan.provenance["index"], plan.provenance["seed"]) for plan in library.plans]
        numbers.extend(index for index, _ in shown)
        on_picture(len(shown))
        return [kitchen_picture(load_task(task), index, seed) for index, seed in shown]

    fake = SimpleNamespace(render_initial_states=render_initial_states)
    monkeypatch.setitem(sys.modules, "scaffoldlab.tasks.rendering", fake)
    simulation = SimpleNamespace(with_default_presets=lambda overrides, device: overrides)
    monkeypatch.setitem(sys.modules, "scaffoldlab.tasks.simulation", simulation)
    return numbers


@pytest.fixture
def model(monkeypatch):
    """Options of a loopback model, which sees the apple by its colour."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with VlmServer(colours={"apple": RED, "cutting board": WOOD}) as server:
        yield ["--base-url", server.url, "--model", "gemini-loopback"]


def assert_seen_where_they_were(library: PlanLibrary) -> None:
    """The apple, 3.75 cm in radius, was found where its state has it: the picture was of that state."""
    for plan in library.plans:
        state = sample_initial_state(load_task(TASK), seed=plan.provenance["seed"], index=plan.provenance["index"])
        np.testing.assert_array_equal(plan.initial_state["apple"], state["apple"])
        assert np.linalg.norm(plan.keypoints_e[0, 0] - state["apple"][:3]) < 0.045


def command(*argv) -> int:
    return main([str(a) for a in argv])


def test_still_library_has_a_plan_without_motion_for_every_state():
    library = still_library(load_task(TASK), count=COUNT, seed=SEED)
    assert len(library) == COUNT
    for index, plan in enumerate(library.plans):
        state = sample_initial_state(load_task(TASK), seed=SEED, index=index)
        assert plan.initial_state.keys() == state.keys()
        for name, value in state.items():
            np.testing.assert_array_equal(plan.initial_state[name], value)
        np.testing.assert_array_equal(plan.wrist_e, [state["hand"]] * 2)
        np.testing.assert_array_equal(plan.keypoints_e[0, 0], state["apple"][:3])  # its keypoint is its middle
        np.testing.assert_array_equal(plan.keypoints_e[1], plan.keypoints_e[0])


def test_plans_of_the_oracle_are_drawn_on_the_pictures_of_their_own_states(gaps, rendered, monkeypatch):
    drawn = {}
    monkeypatch.setattr(draw, "draw_plan", lambda image, plan, path: drawn.update({plan.provenance["index"]: image}))
    assert command("plan", "--task", TASK, "--num-plans", COUNT, "--seed", SEED) == 0
    assert rendered == list(range(COUNT)) and sorted(drawn) == [i for i in range(COUNT) if i not in gaps]
    for index, image in drawn.items():
        np.testing.assert_array_equal(image.rgb, kitchen_picture(load_task(TASK), index, SEED).rgb)


def test_model_gets_the_picture_of_every_state(gaps, rendered, model):
    words = ("plan", "--task", TASK, "--num-plans", COUNT, "--seed", SEED, "--pictures", 0, "--planner", "vlm")
    assert command(*words, *model) == 0
    assert rendered == list(range(COUNT))
    assert_seen_where_they_were(PlanLibrary.load("plans", task=TASK))


def test_demo_gives_a_model_the_picture_of_every_state(rendered, model, monkeypatch, tmp_path):
    class Enough(Exception):
        pass

    def train(*_):
        raise Enough

    monkeypatch.setattr("scaffoldlab.cli.train.train", train)
    monkeypatch.setattr(demo, "SPLITS", {"train": COUNT, "validation": COUNT})
    with pytest.raises(Enough):
        command("demo", "--task", TASK, "--out", "demo", *model)
    assert rendered == 2 * list(range(COUNT))
    for split in ("train", "validation"):
        (path,) = (tmp_path / "demo/plans").glob(f"*-{split}-*.plans.npz")
        assert_seen_where_they_were(PlanLibrary.load(path, task=TASK))


def test_refinement_gives_a_model_the_picture_of_every_state(rendered, model, monkeypatch, tmp_path):
    def succeed(episodes, count):
        return Outcome(success=np.ones(count), completed=np.ones(count), error=np.zeros(count))

    with zipfile.ZipFile(tmp_path / "model.pt", "w"):
        pass  # a policy that is never loaded
    monkeypatch.setattr(refine, "run_policy", lambda *_: None)
    monkeypatch.setattr(refine, "outcome", succeed)
    words = ("refine", "--task", TASK, "--checkpoint", "model.pt", "--num-plans", COUNT, "--rounds", 0, "--out", "r")
    assert command(*words, *model) == 0
    assert rendered == list(range(COUNT))
    assert_seen_where_they_were(PlanLibrary.load(tmp_path / "r/round_0/library.plans.npz", task=TASK))
