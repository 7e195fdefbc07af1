"""Few-shot refinement with a loopback model and a policy that is a function: what is shown, kept, and paid once."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from test_making import RED, WOOD, kitchen_picture, settings

from scaffoldlab.cli.refine import outcome as outcome_of
from scaffoldlab.cli.refine import read_sources
from scaffoldlab.errors import ScaffoldError
from scaffoldlab.evaluation.episodes import Episodes
from scaffoldlab.planners.ledger import Ledger
from scaffoldlab.planners.making import make_request, plan_check, scripted_library, split_seed
from scaffoldlab.planners.refine import FewShot, Outcome, Refinement, best_plans
from scaffoldlab.planners.replay import replay_planner
from scaffoldlab.planners.vlm import vlm_planner
from scaffoldlab.plans.library import PlanLibrary
from scaffoldlab.specs.models import load_task
from vlm_server import Behaviour, VlmServer

COUNT = 5
SHOWN = "A trajectory that succeeded before"


@pytest.fixture(scope="module")
def apple():
    return load_task("move_apple")


@pytest.fixture
def model(monkeypatch):
    for name in ("SCAFFOLDLAB_BASE_URL", "SCAFFOLDLAB_MODEL", "OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with VlmServer(colours={"apple": RED, "cutting board": WOOD}) as server:
        yield server


def all_succeed(library):
    """The first plan is the best, the last the worst."""
    n = len(library)
    return Outcome(success=np.ones(n), completed=np.ones(n), error=np.arange(n) / 100)


def result(success, completed, error):
    return Outcome(success=np.array(success, float), completed=np.array(completed), error=np.array(error))


@pytest.fixture
def refinement(apple, model, tmp_path):
    """A refinement of 5 plans and 2 rounds with the loopback model."""

    def make(**changes):
        def planner(number, examples, ledger):
            return vlm_planner(settings(model), ledger=ledger, check=plan_check(apple), examples=examples)

        values = dict(
            composition=apple, folder=tmp_path / "r", planner=planner, rollout=all_succeed, rounds=2, count=COUNT,
            pictures=lambda seed, count: [kitchen_picture(apple, i, seed) for i in range(count)],
            sources=["train1"], drawn=2,
        )  # fmt: skip
        return Refinement(**values | changes)

    return make


def prompts(model, kind="trajectory") -> list[str]:
    """Texts of the requests of a kind that arrived."""
    return [seen.body["messages"][0]["content"] for seen in model.requests if seen.kind == kind]


# --- ranking --------------------------------------------------------------------------------------------------------

MIXED = result([0, 1, 0.5, 1, 0], [1, 0.5, 1, 1, 0.3], [0.01, 0.05, 0.02, 0.04, 0.3])


def test_success_ranks_by_success_then_by_how_far_it_was_tracked():
    assert best_plans(MIXED, "success", 10) == ([3, 1, 2], "success")
    assert best_plans(MIXED, "success", 2) == ([3, 1], "success")


def test_tracking_ranks_what_was_tracked_to_its_end_by_error():
    assert best_plans(MIXED, "tracking", 10) == ([0, 2, 3], "tracking")


def test_without_success_it_falls_back_to_tracking_and_then_to_nothing():
    failed = replace(MIXED, success=np.zeros(5))
    assert best_plans(failed, "success", 10) == ([0, 2, 3], "tracking")
    lost = replace(failed, completed=np.full(5, 0.9))
    assert best_plans(lost, "success", 10) == ([], "zero-shot")
    assert best_plans(lost, "tracking", 10) == ([], "zero-shot")


def test_outcome_of_episodes_is_the_mean_over_trials():
    error = np.full((4, 10), 0.05)
    error[1, 5:] = 0.2  # lost after half of the episode
    error[2, 0] = np.nan
    episodes = Episodes(
        policy="deterministic", success=np.array([1, 0, 1, 1], bool), success_end=np.ones(4, bool), error=error,
        keypoint_error=np.zeros(4), threshold=0.1, plan_id=np.array([0, 0, 1, 2]),
    )  # fmt: skip
    got = outcome_of(episodes, 3)
    np.testing.assert_array_equal(got.success, [0.5, 1, 1])
    np.testing.assert_array_equal(got.completed, [0.75, 0, 1])


# --- examples -------------------------------------------------------------------------------------------------------


def test_examples_are_drawn_by_the_request_alone_and_never_from_its_own_state(apple):
    pool = scripted_library(apple, count=10, seed=3)
    draw = FewShot(pool, count=3)
    starts = {tuple(p.wrist_e[0, :3]): i for i, p in enumerate(pool.plans)}
    seen = set()
    for index in range(10):
        request = make_request(apple, seed=3, index=index)
        drawn = [starts[tuple(w.hand_e[0])] for w in draw(request)]
        assert drawn == [starts[tuple(w.hand_e[0])] for w in FewShot(pool, count=3)(request)]
        assert len(set(drawn)) == 3 and index not in drawn
        seen.update(drawn)
    assert len(seen) > 6
    assert len(FewShot(pool.subset([0, 1]), count=3)(make_request(apple, seed=3, index=0))) == 1


def test_examples_of_another_task_are_refused(apple):
    pool = scripted_library(load_task("open_drawer"), count=2, seed=0)
    with pytest.raises(ScaffoldError, match="their plans are of task 'open_drawer' with keypoints handle"):
        FewShot(pool)(make_request(apple, seed=0, index=0))


# --- rounds ---------------------------------------------------------------------------------------------------------


def test_each_round_shows_three_of_the_best_plans_of_the_one_before(refinement, model, tmp_path):
    rounds = refinement(top=4).run()
    assert [r.number for r in rounds] == [0, 1, 2] and [r.examples for r in rounds] == [0, 4, 4]
    assert [r.best for r in rounds] == [[0, 1, 2, 3]] * 3 and rounds[2].success_rate == 1
    shown = [text.count(SHOWN) for text in prompts(model)]
    assert shown == [0] * COUNT + [3] * 2 * COUNT
    for number in range(3):
        folder = tmp_path / "r" / f"round_{number}"
        library = PlanLibrary.load(folder / "library.plans.npz", task="move_apple")
        assert len(library) == COUNT and library.header["split"] == "train1"
        assert library.header["refinement"] == {"round": number, "examples": 4 if number else 0, "shots": 3}
        assert len(PlanLibrary.load(folder / "best.plans.npz")) == 4
        assert [r.verdict for r in Ledger.read(folder / "ledger.jsonl").records] == ["ok"] * 2 * COUNT
        assert Image.open(folder / "plans.png").width > 2 * 400
    sheet = Image.open(tmp_path / "r" / "rounds.png")
    assert sheet.width > 3 * 400 and sheet.height > 2 * 400  # three rounds, two plans


def test_rounds_go_through_the_splits_and_stay_with_the_last(refinement):
    rounds = refinement(sources=["train1", "train2"]).run()
    assert [r.source for r in rounds] == ["train1", "train2", "train2"]
    assert [r.seed for r in rounds] == [split_seed("move_apple", f"train{i}") for i in (1, 2, 2)]


def test_library_that_is_given_is_the_first_round_and_its_states_are_planned_again(refinement, apple, model):
    given = scripted_library(apple, count=4, seed=9)
    rounds = refinement(sources=[given], rounds=1).run()
    assert [(r.source, r.seed, r.plans) for r in rounds] == [("library", 9, 4)] * 2
    assert [text.count(SHOWN) for text in prompts(model)] == [3] * 4


def test_finished_rounds_are_read_and_more_can_be_added(refinement, model):
    first = refinement(rounds=1).run()
    asked = len(model.requests)

    def never(library):
        raise AssertionError("a finished round ran again")

    assert refinement(rounds=1, rollout=never).run() == first and len(model.requests) == asked
    assert refinement(rounds=2).run()[:2] == first and len(model.requests) == asked + 2 * COUNT


def test_run_that_is_killed_in_a_rollout_goes_on_without_asking_again(refinement, model):
    runs = []

    def killed(library):
        runs.append(library.digest)
        if len(runs) == 2:
            raise KeyboardInterrupt
        return all_succeed(library)

    with pytest.raises(KeyboardInterrupt):
        refinement(rollout=killed).run()
    asked = len(model.requests)
    assert asked == 2 * 2 * COUNT
    rounds = refinement(rollout=killed).run()
    assert runs[2] == runs[1]  # the same plans of round 1 run again
    assert len(rounds) == 3 and len(model.requests) == asked + 2 * COUNT


def test_run_that_is_killed_while_it_plans_pays_for_no_call_twice(refinement, model, tmp_path):
    """The endpoint goes away after some calls of round 1, and the run is cut off."""
    refinement(rounds=0).run()
    paid = len(model.requests)

    class Killed(BaseException):
        pass

    inner = refinement().planner

    def planner(number, examples, ledger):
        made = inner(number, examples, ledger)
        plan, done = made.plan, []

        def cut(request):
            if len(done) == 2:
                raise Killed
            done.append(request.index)
            return plan(request)

        made.plan = cut
        return made

    with pytest.raises(Killed):
        refinement(rounds=1, planner=planner, concurrency=1).run()
    recorded = len(Ledger.read(tmp_path / "r" / "round_1" / "ledger.jsonl").records)
    assert recorded == 2 * 2 and len(model.requests) == paid + recorded
    refinement(rounds=1).run()
    assert len(model.requests) == paid + 2 * COUNT


def test_round_without_success_says_what_it_falls_back_to(refinement, model):
    outcomes = iter(
        [
            lambda n: result([0] * n, [1, 1] + [0.5] * (n - 2), [0.02, 0.01] + [0.3] * (n - 2)),
            lambda n: result([0] * n, [0.5] * n, [0.3] * n),
            lambda n: result([0] * n, [0.5] * n, [0.3] * n),
        ]
    )
    rounds = refinement(rollout=lambda library: next(outcomes)(len(library))).run()
    assert [r.rank for r in rounds] == ["tracking", "zero-shot", "zero-shot"]
    assert rounds[0].best == [1, 0] and "tracked to their end" in rounds[0].note
    assert rounds[1].best == [] and "gets no examples" in rounds[1].note
    # Two plans are in the pool of round 1; for their own states only the other one is shown.
    assert sorted(text.count(SHOWN) for text in prompts(model)) == [0] * 2 * COUNT + [1] * 2 + [2] * (COUNT - 2)


def test_plan_that_a_round_lacks_leaves_a_gap_in_the_sheet(refinement, model, tmp_path):
    model.misbehave("trajectory", "short", "short")  # and once more when it is repaired
    rounds = refinement(rounds=1, concurrency=1).run()
    assert [r.plans for r in rounds] == [COUNT - 1, COUNT]
    sheet = np.asarray(Image.open(tmp_path / "r" / "rounds.png").convert("RGB"))
    gap = sheet[100:300, 100:300]
    assert (gap == 230).all()


def test_replay_makes_the_same_rounds_offline(refinement, apple, model, tmp_path):
    made = refinement().run()
    asked = len(model.requests)

    def recorded(number, examples, ledger):
        folder = tmp_path / "r" / f"round_{number}"
        return replay_planner(folder / "ledger.jsonl", check=plan_check(apple), examples=examples)

    again = refinement(folder=tmp_path / "again", planner=recorded).run()
    assert len(model.requests) == asked and again == made
    for number in range(3):
        one, two = (
            PlanLibrary.load(tmp_path / name / f"round_{number}" / "library.plans.npz") for name in ("r", "again")
        )
        for plan, copy in zip(one.plans, two.plans, strict=True):
            np.testing.assert_array_equal(plan.keypoints_e, copy.keypoints_e)
            assert "prompt_differs" not in copy.provenance


def test_other_settings_in_the_same_folder_are_refused(refinement, tmp_path):
    refinement(rounds=0, settings={"model": "a"}).run()
    with pytest.raises(ScaffoldError, match="was made with rank = success; got tracking"):
        refinement(rounds=0, rank="tracking", settings={"model": "a"}).run()
    with pytest.raises(ScaffoldError, match="was made with model = a; got b"):
        refinement(rounds=0, settings={"model": "b"}).run()
    assert json.loads((tmp_path / "r" / "refine.json").read_text())["rank"] == "success"


def test_slow_endpoint_that_ends_a_call_only_late_does_not_change_the_round(refinement, model):
    """Plans come back out of order when they are made side by side."""
    model.misbehave("keypoints", Behaviour(sleep=0.3))
    rounds = refinement(rounds=1, concurrency=4).run()
    assert rounds[0].plans == COUNT and len(model.requests) == 2 * 2 * COUNT


# --- the command ----------------------------------------------------------------------------------------------------


def test_sources_are_splits_and_perhaps_a_library_before_them(apple, tmp_path):
    path = scripted_library(apple, count=2, seed=0).save(tmp_path / "mine.plans.npz")
    assert read_sources("train1, train2", "move_apple") == ["train1", "train2"]
    first, second = read_sources(f"{path},train2", "move_apple")
    assert isinstance(first, PlanLibrary) and second == "train2"
    with pytest.raises(ScaffoldError, match="unknown split 'train4'. Did you mean 'train"):
        read_sources("train1,train4", "move_apple")
