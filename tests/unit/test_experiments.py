"""Experiments: what a file may say, that every artefact is made once and only once, and what the tables show."""

import csv
import io
import json
import math
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

import scaffoldlab.cli
from scaffoldlab.cli.experiment import fitting, one_share_each, shares_of, visible_gpus
from scaffoldlab.errors import ScaffoldError
from scaffoldlab.experiments.grid import Artefact, GridResult, Share, cells, plan_of_work, run_grid, run_process
from scaffoldlab.experiments.models import PROTOCOLS, ExperimentSpec, list_experiments, load_experiment
from scaffoldlab.experiments.tables import as_csv, markdown, plot, rate, sankey, write_tables
from scaffoldlab.specs.models import load_task

SMALL = PROTOCOLS["smoke"]


def experiment(**changes) -> ExperimentSpec:
    data = {
        "name": "test",
        "title": "A test",
        "source": "nowhere",
        "tasks": ["move_apple", "open_drawer"],
        "rows": [{"name": "ours"}, {"name": "recorded", "test_plans": {"planner": "prerecorded"}}],
        "paper": {"ours": {"mean": 72, "move_apple": 90}},
    }
    return ExperimentSpec.model_validate(data | changes)


class Maker:
    """Writes what a command would leave: the success rate depends on the row's plans and the seed."""

    def __init__(self, fails=lambda artefact: False):
        self.made, self.fails, self.lock = [], fails, threading.Lock()

    def __call__(self, artefact: Artefact, root) -> None:
        with self.lock:
            self.made.append(artefact)
        if self.fails(artefact):
            raise ScaffoldError(f"no {artefact.kind}")
        folder = artefact.folder(root)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / artefact.result.replace("*", "x")).write_text(json.dumps(metrics(artefact)))


def metrics(artefact: Artefact) -> dict:
    success = 6 + artefact.options.get("seed", 0)
    return {
        "physics": "ovphysx", "device": "cpu", "episodes": 8, "trials": 1, "states_without_plan": 0,
        "success_rate": success / 10, "success_stderr": 0.1,
        "zero_action_success_rate": 0.2, "best_timed_close_success_rate": 0.5,
        "training_wall_seconds": 90.0,
        "policies": {"deterministic": {"outcomes": {
            "success": success, "keypoint wrong": 1, "tracking lost": 9 - success, "tracked but failed": 0,
        }}},
    }  # fmt: skip


# --- files ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list_experiments())
def test_every_experiment_loads_and_its_cells_are_commands(name, tmp_path):
    loaded = load_experiment(name)
    grid = cells(loaded, SMALL)
    assert len(grid) == len(loaded.tasks) * len(loaded.rows)
    kinds = {artefact.kind for artefact in plan_of_work(grid, tmp_path)}
    assert kinds <= {"plan", "train", "imitate", "evaluate", "refine"}


def test_unknown_experiment_is_told_the_nearest():
    with pytest.raises(ScaffoldError, match="Did you mean 'waypoints'"):
        load_experiment("waypoint")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rows": [{"name": "a"}, {"name": "a"}]}, "two rows have the same name"),
        ({"paper": {"theirs": {"mean": 1}}}, r"no row is called \['theirs'\]"),
        ({"paper": {"ours": {"move_aple": 1}}}, r"'paper' has numbers of \['move_aple'\]; allowed: .*'mean'"),
        ({"axis": "waypoints"}, r"begins with its number; got \['ours', 'recorded'\]"),
        ({"rows": [{"name": "a", "policy": "diffusion"}]}, "needs 'teacher' and 'demonstrations'"),
        ({"rows": [{"name": "a", "plans": {"noise": -1}}]}, "greater than or equal to 0"),
        ({"rows": [{"name": "a", "plans": {"refined": 1}}]}, "'refined' is for planner 'vlm'"),
        ({"rows": [{"name": "a", "plans": {"perturb": {"hand_m": 1}}}]}, "'perturb' is for planner 'perturbed'"),
        ({"rows": [{"name": "a", "measured": "m.json", "replan": "scripted"}]}, "nothing but its name"),
        ({"rows": [{"name": "a", "measured": "a/{row}.json"}]}, "{task} and {seed} may stand"),
        ({"row": []}, "Extra inputs"),
    ],
)
def test_wrong_experiment_is_refused(change, words):
    with pytest.raises(ValueError, match=words):
        experiment(**change)


def test_file_names_its_field_and_what_is_allowed(extra_root):
    path = extra_root / "experiments/mine.yaml"
    path.parent.mkdir()
    data = {"title": "t", "source": "s", "tasks": ["move_apple"], "rows": [{"name": "a", "plan": {}}]}
    path.write_text(yaml.safe_dump(data))
    with pytest.raises(ScaffoldError, match=r"mine.yaml: rows\.0\.plan.*Did you mean 'plans'"):
        load_experiment("mine")


# --- the grid -------------------------------------------------------------------------------------------------------


def test_rows_that_share_a_training_train_once(tmp_path):
    maker = Maker()
    result = run_grid(cells(experiment(), SMALL), tmp_path, run=maker)
    # Per task: plans to train on, to validate, of the test, recorded ones of the test; one policy, two evaluations.
    kinds = [artefact.kind for artefact in maker.made]
    assert {kind: kinds.count(kind) for kind in kinds} == {"plan": 8, "train": 2, "evaluate": 4}
    assert len(result.metrics) == 4 and not result.failures


def test_nothing_is_made_twice_and_what_was_cut_off_is_made_again(tmp_path):
    grid = cells(experiment(), SMALL)
    run_grid(grid, tmp_path, run=Maker())
    again = Maker()
    assert plan_of_work(grid, tmp_path) == []
    run_grid(grid, tmp_path, run=again)
    assert again.made == []
    # A kill between the result and its mark, as kill -9 would leave it.
    (grid[0].evaluation.folder(tmp_path) / "done.json").unlink()
    run_grid(grid, tmp_path, run=again)
    assert again.made == [grid[0].evaluation]


def test_other_inputs_are_other_artefacts():
    (one, *_), (other, *_) = (cells(experiment(noise=noise), SMALL) for noise in (0.0, 0.015))
    assert one.evaluation.digest != other.evaluation.digest
    (one, *_), (other, *_) = (cells(experiment(noise=0.0), PROTOCOLS[p]) for p in ("smoke", "quick"))
    assert one.evaluation.digest != other.evaluation.digest


def test_task_that_was_edited_is_another_artefact(write_task):
    def artefacts(change=lambda data: None):
        write_task("mine", change)
        load_task.cache_clear()
        return {
            a.kind: a.digest for a in plan_of_work(cells(experiment(tasks=["mine"], paper={}), SMALL)[:1], Path("none"))
        }

    before = artefacts()
    assert before == artefacts()
    after = artefacts(lambda data: data["grasp"].update(center=[0.1, 0.0, 0.05]))
    assert not set(before.values()) & set(after.values())


def test_rounds_of_refinement_are_made_once_and_each_gives_its_examples(tmp_path, monkeypatch):
    monkeypatch.setenv("SCAFFOLDLAB_MODEL", "some-model")
    rows = [{"name": str(k), "plans": {"planner": "vlm", "refined": k}} for k in range(4)]
    grid = cells(experiment(tasks=["move_apple"], rows=rows, paper={}), SMALL)
    work = plan_of_work(grid, tmp_path)
    (refinement,) = (artefact for artefact in work if artefact.kind == "refine")
    words = refinement.command(tmp_path)
    assert words[words.index("--rounds") + 1] == "2" and words[words.index("--model") + 1] == "some-model"
    # The plans that the policy was trained on are its first round: they are paid for.
    (zero_shot,) = (a for a in work if a.kind == "train" and "examples" not in a.options["plans"].options)
    first = zero_shot.options["plans"]
    assert words[words.index("--plans") + 1] == f"{first.taken(tmp_path)},train2,train3"
    assert work.index(first) < work.index(refinement)
    examples = [a.options["examples"].part for a in work if "examples" in a.options and a.options["split"] == "test"]
    assert examples == [f"round_{k}/best.plans.npz" for k in range(3)]
    assert [a.kind for a in work].count("train") == 4
    monkeypatch.setenv("SCAFFOLDLAB_MODEL", "another-model")
    again = plan_of_work(cells(experiment(tasks=["move_apple"], rows=rows, paper={}), SMALL), tmp_path)
    assert not {a.digest for a in work} & {a.digest for a in again}


def test_round_without_success_gives_no_examples(tmp_path):
    rows = [{"name": str(k), "plans": {"planner": "vlm", "refined": k}} for k in (1, 2)]
    grid = cells(experiment(tasks=["move_apple"], rows=rows, paper={}), SMALL)

    def make(artefact, root):
        Maker()(artefact, root) if artefact.kind != "refine" else None
        for name in ("round_0/best.plans.npz", "round_2/round.json") if artefact.kind == "refine" else ():
            (artefact.folder(root) / name).parent.mkdir(parents=True)
            (artefact.folder(root) / name).touch()

    assert not run_grid(grid, tmp_path, run=make).failures
    first, second = (cell.evaluation.options["plans"].command(tmp_path) for cell in grid)
    assert first[first.index("--examples") + 1].endswith("round_0/best.plans.npz") and "--examples" not in second


def test_row_measured_elsewhere_is_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [{"name": "theirs", "measured": "theirs/{task}/{seed}.json"}]
    grid = cells(spec := experiment(rows=rows, paper={}), SMALL)
    assert plan_of_work(grid, tmp_path) == []
    (tmp_path / "theirs/move_apple").mkdir(parents=True)
    made = metrics(Artefact("evaluate", {"seed": 1}, "metrics.json"))
    made = {k: made[k] for k in ("success_rate", "success_stderr", "policies")}  # all that another program has to write
    (tmp_path / "theirs/move_apple/0.json").write_text(json.dumps(made))
    result = run_grid(grid, tmp_path)
    assert rate(result, "move_apple", "theirs") == (0.7, 0.1)
    assert "theirs/open_drawer/0.json: missing; allowed" in result.failures["open_drawer", "theirs", 0]
    assert "70 ± 10" in markdown(spec, "smoke", SMALL, result)


OTHER_OUTCOMES = {"deterministic": {"outcomes": {"success": 60, "failure": 40}}}


@pytest.mark.parametrize(
    "text",
    [
        "{", "[]", '{"success_rate": 1}',
        json.dumps({"success_rate": 0.6, "success_stderr": 0.1, "policies": OTHER_OUTCOMES}),
    ],
)  # fmt: skip
def test_metrics_of_another_form_cost_their_cell(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    Path("a.json").write_text(text)
    rows = [{"name": "theirs", "measured": "a.json"}]
    result = run_grid(cells(experiment(tasks=["move_apple"], rows=rows, paper={}), SMALL), tmp_path)
    assert "a.json: no metrics (" in result.failures["move_apple", "theirs", 0]


def test_row_that_plans_again_counts_what_came_of_it(tmp_path):
    rows = [
        {"name": "again", "replan": "perturbed", "test_plans": {"planner": "perturbed", "perturb": {"pixel_px": 9}}}
    ]
    grid = cells(spec := experiment(tasks=["move_apple"], rows=rows, paper={}), SMALL)
    words = grid[0].evaluation.command(tmp_path)
    assert words[words.index("--replan") + 1 :][:3] == ["perturbed", "--perturb", "pixel_px=9"]
    result = run_grid(grid, tmp_path, run=Maker())
    result.metrics["move_apple", "again", 0] |= {"replanned_success_rate": 0.9, "replanned_success_stderr": 0.02}
    again = {"success": 9, "keypoint wrong": 0, "tracking lost": 1, "tracked but failed": 0}
    result.metrics["move_apple", "again", 0]["policies"]["deterministic, replanned"] = {"outcomes": again}
    assert "90 ± 2" in markdown(spec, "smoke", SMALL, result)
    assert "success: 90 %" in sankey(spec, result)


def test_model_that_plans_again_is_asked_as_it_was_for_the_plans(tmp_path, monkeypatch):
    monkeypatch.setenv("SCAFFOLDLAB_MODEL", "a-model")
    rows = [{"name": "again", "replan": "vlm", "test_plans": {"planner": "vlm", "votes": 3}}]
    words = cells(experiment(tasks=["move_apple"], rows=rows, paper={}), SMALL)[0].evaluation.command(tmp_path)
    assert words[words.index("--replan") + 1 :][:5] == ["vlm", "--votes", "3", "--model", "a-model"]


def test_whoever_plans_again_has_the_options_of_the_row_s_plans(tmp_path, monkeypatch):
    monkeypatch.setenv("SCAFFOLDLAB_MODEL", "a-model")
    plans = {"planner": "perturbed", "votes": 3, "orientation": True}
    said = {}
    for who in ("scripted", "perturbed", "vlm"):
        rows = [{"name": "again", "replan": who, "test_plans": plans}]
        words = cells(experiment(tasks=["move_apple"], rows=rows, paper={}), SMALL)[0].evaluation.command(tmp_path)
        said[who] = words[words.index("--replan") : words.index("--no-film")]
    assert said["scripted"] == ["--replan", "scripted", "--orientation"]
    assert said["perturbed"] == ["--replan", "perturbed", "--orientation", "--votes", "3"]
    assert said["vlm"] == ["--replan", "vlm", "--orientation", "--votes", "3", "--model", "a-model"]


def test_state_without_a_plan_is_a_failure(tmp_path):
    grid = cells(spec := experiment(tasks=["move_apple"], rows=[{"name": "ours"}], paper={}), SMALL)
    result = run_grid(grid, tmp_path, run=Maker())
    assert "| move_apple | 60 ± 10 | 20 | 50 | 1.5 |" in markdown(spec, "smoke", SMALL, result)
    result.metrics["move_apple", "ours", 0] |= {"states_without_plan": 2}  # of 10
    text = markdown(spec, "smoke", SMALL, result)
    assert "| move_apple | 48 ± 8 | 16 | 40 | 1.5 |" in text
    # The 10 episodes of the stand-in's metrics, and these 2.
    assert "success 50 %, keypoint wrong 8 %, tracking lost 25 %, tracked but failed 0 %, no plan 17 %" in text
    assert "no plan: 17 %" in sankey(spec, result) and "keypoints right: 75 %" in sankey(spec, result)


def test_votes_and_check_are_inputs_of_the_plans():
    rows = [{"name": "a", "plans": {"planner": "perturbed", "votes": 5, "check_collisions": True}}]
    (cell,) = cells(experiment(tasks=["move_apple"], rows=rows, paper={}), SMALL)
    words = cell.evaluation.options["plans"].command(Path("root"))
    assert words[words.index("--votes") + 1] == "5"
    assert words[words.index("--check-collisions") + 1].startswith("--")


def test_noise_of_an_experiment_is_on_plans_of_the_scripted_oracle_only(tmp_path):
    rows = [
        {"name": "oracle"},
        {"name": "model", "plans": {"planner": "vlm"}},
        {"name": "stand-in", "test_plans": {"planner": "perturbed"}},
        {"name": "recorded", "test_plans": {"planner": "prerecorded"}},
        {"name": "told", "test_plans": {"planner": "perturbed", "noise": 0.02}},
    ]
    grid = cells(experiment(tasks=["move_apple"], rows=rows, paper={}, noise=0.015), SMALL)
    noise = {}
    for artefact in plan_of_work(grid, tmp_path):
        if artefact.kind == "plan":
            words = artefact.command(tmp_path)
            planner = words[words.index("--planner") + 1]
            noise.setdefault(planner, set()).add(words[words.index("--noise") + 1])
    assert noise == {"scripted": {"0.015"}, "vlm": {"0.0"}, "perturbed": {"0.0", "0.02"}, "prerecorded": {"0.0"}}


def test_policy_of_two_tests_is_trained_once():
    rows = [{"name": "here"}, {"name": "there", "test_overrides": ["physics=newton_mjwarp"]}]
    here, there = cells(experiment(rows=rows, paper={}, tasks=["move_apple"]), SMALL)
    assert there.evaluation.overrides == ("physics=newton_mjwarp",) and here.evaluation.overrides == ()
    assert here.evaluation.options["checkpoint"] == there.evaluation.options["checkpoint"]


def test_failure_costs_its_cells_and_no_other_and_is_tried_again(tmp_path):
    grid = cells(experiment(), SMALL)
    broken = Maker(lambda a: a.kind == "train" and a.options["task"] == "open_drawer")
    result = run_grid(grid, tmp_path, run=broken)
    assert {task for task, *_ in result.failures} == {"open_drawer"} and len(result.metrics) == 2
    assert sum(a.kind == "train" for a in broken.made) == 2  # not tried twice in one run
    assert not run_grid(grid, tmp_path, run=Maker()).failures


def test_killed_grid_leaves_no_process_behind(tmp_path):
    """Started again, the grid would train in a folder that the one left behind still writes to."""
    code = (
        "import sys; from pathlib import Path; from scaffoldlab.experiments import grid\n"
        "loop = 'import os, time; print(os.getpid(), flush=True); time.sleep(600)'\n"
        "grid.Artefact.command = lambda self, root: [sys.executable, '-c', loop]\n"
        "grid.run_process(grid.Artefact('train', {}, 'x'), Path(sys.argv[1]))"
    )
    grid = subprocess.Popen([sys.executable, "-c", code, tmp_path])
    pid = eventually(lambda: "".join(p.read_text().strip() for p in tmp_path.glob("*/command.log")))
    grid.kill()
    grid.wait()
    stat = Path(f"/proc/{pid}/stat")
    eventually(lambda: not stat.exists() or stat.read_text().split()[2] == "Z")


def eventually(value):
    """What a function returns as soon as it is something."""
    end = time.monotonic() + 30
    while not (got := value()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return got


def test_jobs_run_side_by_side_and_an_artefact_never_twice(tmp_path):
    maker = Maker()
    run_grid(cells(experiment(), PROTOCOLS["paper"]), tmp_path, run=maker, jobs=8)
    assert len({a.digest for a in maker.made}) == len(maker.made) == 8 + 2 * 3 + 4 * 3


def test_two_grids_at_a_time_make_an_artefact_once(tmp_path):
    class Slow(Maker):
        def __call__(self, artefact, root):
            time.sleep(0.05)
            super().__call__(artefact, root)

    maker, grid = Slow(), cells(experiment(), SMALL)
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda _: run_grid(grid, tmp_path, run=maker), range(2)))
    assert all(len(result.metrics) == len(grid) for result in results)
    assert len({a.digest for a in maker.made}) == len(maker.made)


def test_job_gets_the_gpu_that_has_become_free(tmp_path):
    started, ends = [], [threading.Event() for _ in range(3)]

    def run(number, root, share):
        started.append(share.gpu)
        ends[number].wait(30)
        if number == 1:
            raise ScaffoldError("a failure gives its GPU back too")

    make = one_share_each(run, shares_of(["2", "3"], [0, 1, 2, 3], jobs=None))
    with ThreadPoolExecutor(3) as pool:
        pool.submit(make, 0, tmp_path)
        eventually(lambda: len(started) == 1)
        second = pool.submit(make, 1, tmp_path)
        eventually(lambda: len(started) == 2)
        ends[1].set()
        assert second.exception(30)
        pool.submit(make, 2, tmp_path)
        eventually(lambda: len(started) == 3)
        ends[0].set(), ends[2].set()
    assert started == ["2", "3", "3"]


def test_jobs_without_a_gpu_have_two_cores_each_where_there_are_as_many():
    assert [sorted(share.cores) for share in shares_of([], [0, 1, 4, 5, 8], None)] == [[0, 1], [4, 5]]
    assert [len(share.cores) for share in shares_of([], list(range(16)), 3)] == [5, 5, 5]
    assert shares_of([], [0, 1], None) == [Share(cores=frozenset({0, 1}))]
    assert shares_of([], [0, 1], 2) == [Share(), Share()]  # all of them share both
    assert shares_of(["0"], [0, 1], 3) == [Share(gpu="0")] * 3


def test_job_runs_on_its_share(tmp_path, monkeypatch):
    code = "import os; print(os.environ.get('CUDA_VISIBLE_DEVICES'), sorted(os.sched_getaffinity(0)))"
    monkeypatch.setattr(Artefact, "command", lambda self, root: [sys.executable, "-c", code])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    core = min(os.sched_getaffinity(0))
    for share, said in ((Share(cores=frozenset({core})), f"None [{core}]"), (Share(gpu="3"), "3 [")):
        run_process(artefact := Artefact("train", {}, "x"), tmp_path, share)
        assert (artefact.folder(tmp_path) / "command.log").read_text().startswith(said)


@pytest.mark.parametrize(
    ("named", "count", "ids"),
    [(None, 2, ["0", "1"]), ("2,3", 2, ["2", "3"]), ("3, 1,9", 2, ["3", "1"]), ("", 0, []), ("GPU-4e", 1, ["GPU-4e"])],
)
def test_gpus_are_those_that_the_user_has_left_visible(monkeypatch, named, count, ids):
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if named is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert visible_gpus() == ids


def test_ray_runs_as_many_jobs_as_its_resources_allow():
    assert fitting({"CPU": 2, "GPU": 1}, {"CPU": 16.0, "GPU": 3.0, "memory": 1e9}) == 3
    assert fitting({"CPU": 2, "GPU": 0}, {"CPU": 9.0}) == 4
    assert fitting({"CPU": 2, "GPU": 0}, {"CPU": 1.0}) == 1


def test_command_fails_if_nothing_at_all_was_measured(extra_root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = extra_root / "experiments/mine.yaml"
    path.parent.mkdir()
    rows = [{"name": "theirs", "measured": "{task}.json"}]
    path.write_text(yaml.safe_dump({"title": "t", "source": "s", "tasks": ["move_apple", "open_drawer"], "rows": rows}))
    command = ["experiment", "mine", "--protocol", "smoke"]
    assert scaffoldlab.cli.main(command) == 1
    assert "open_drawer.json: missing" in Path("outputs/experiments/mine/table.md").read_text()
    assert scaffoldlab.cli.main([*command, "--dry-run"]) == 0
    Path("move_apple.json").write_text(json.dumps(metrics(Artefact("evaluate", {"seed": 1}, "metrics.json"))))
    assert scaffoldlab.cli.main(command) == 0


def test_command_names_the_files_of_what_it_needs(tmp_path):
    grid = cells(experiment(), SMALL)
    run_grid(grid, tmp_path, run=Maker())
    words = grid[1].evaluation.command(tmp_path)
    assert words[1:4] == ["-m", "scaffoldlab", "evaluate"]
    assert words[words.index("--checkpoint") + 1].endswith("model_best.pt")
    recorded = grid[1].evaluation.options["plans"].command(tmp_path)
    assert recorded[recorded.index("--recorded") + 1].endswith("x.plans.npz")


# --- the tables -----------------------------------------------------------------------------------------------------


@pytest.fixture
def result(tmp_path):
    return run_grid(cells(experiment(), PROTOCOLS["paper"]), tmp_path, run=Maker())


def test_rate_is_the_mean_over_seeds_with_its_standard_error(result):
    share, error = rate(result, "move_apple", "ours")  # 0.6, 0.7, 0.8
    assert share == pytest.approx(0.7) and error == pytest.approx(0.1 / math.sqrt(3))


def test_table_shows_the_baselines_and_the_papers_numbers(result):
    text = markdown(experiment(), "paper", PROTOCOLS["paper"], result)
    assert "| ours | 70 ± 6 (20, 50); paper 90 | 70 ± 6 (20, 50) | 70 | 72 |" in text
    assert "100 unseen states x 20 trials, 3 seed(s)" in text and "ovphysx on cpu" in text
    assert "ManiSkill" in text


def test_one_row_is_told_task_by_task_with_its_training(tmp_path):
    spec = experiment(rows=[{"name": "ours"}], tasks=["move_apple", "hammer", "close_pliers", "slide_box_arm"])
    made = run_grid(cells(spec, PROTOCOLS["quick"]), tmp_path, run=Maker())
    text = markdown(spec, "quick", PROTOCOLS["quick"], made)
    assert "| move_apple | 60 ± 10 | 20 | 50 | 1.5 | 90 |" in text
    assert "| hammer | 60 ± 10 | 20 | 50 | 1.5 | - |" in text
    assert "10 minutes, or 20 (hammer, close_pliers, slide_box_arm) of training" in text
    assert "- on a CPU `env.curriculum.threshold.params.final_fraction=1` (hammer)" in text
    assert "`env.rewards.task_success.weight=2`, " in text
    assert text.count("- on a CPU `") == 2  # the box on the arm has more minutes and nothing else


def test_table_says_how_long_the_episodes_of_its_tasks_are(result):
    spec = experiment(tasks=["move_apple", "move_bottle", "hammer"])
    text = markdown(spec, "paper", PROTOCOLS["paper"], result)
    assert "- on a CPU T = 200 (move_apple); 240 (move_bottle); 300 (hammer) control steps; the paper's is 300" in text


def test_task_says_how_long_it_trains_where_the_protocol_lets_it():
    def minutes(protocol):
        grid = cells(experiment(tasks=["move_apple", "hammer"], paper={}), PROTOCOLS[protocol])
        return [cell.evaluation.options["checkpoint"].options["minutes"] for cell in grid if cell.row == "ours"]

    assert minutes("quick") == [10, 20] and minutes("smoke") == [0.05, 0.05]


def test_what_failed_stays_in_the_table_with_its_reason(tmp_path):
    broken = Maker(lambda a: a.kind == "train" and a.options["task"] == "open_drawer")
    result = run_grid(cells(experiment(), SMALL), tmp_path, run=broken)
    text = markdown(experiment(), "smoke", SMALL, result)
    assert "| ours | 60 ± 10 (20, 50); paper 90 | failed | 60 (1 tasks) | 72 |" in text
    assert "Not measured:\n\n- no train" in text
    assert "over all cells: success 60 %, keypoint wrong 10 %, tracking lost 30 %, tracked but failed 0 %, no" in text
    rows = list(csv.DictReader(io.StringIO(as_csv(experiment(), result))))
    assert [row["success"] for row in rows] == ["60.0", "", "60.0", ""] and rows[1]["failed"] == "no train"


def test_cell_says_how_many_of_its_seeds_were_measured(tmp_path):
    broken = Maker(lambda a: a.kind == "train" and a.options["seed"] == 2)
    spec = experiment(rows=[{"name": "ours"}], tasks=["move_apple"], paper={})
    result = run_grid(cells(spec, PROTOCOLS["paper"]), tmp_path, run=broken)
    assert "| move_apple | 65 ± 5 [2 of 3 seeds] |" in markdown(spec, "paper", PROTOCOLS["paper"], result)


def test_table_names_every_engine_that_it_was_measured_on(result):
    result.metrics["move_apple", "ours", 0] |= {"physics": "newton_mjwarp"}
    assert "of training, newton_mjwarp on cpu and ovphysx on cpu." in markdown(
        experiment(), "paper", PROTOCOLS["paper"], result
    )


def test_one_reason_of_many_artefacts_is_told_once():
    result = GridResult()
    for task in ("move_apple", "open_drawer"):
        for row in ("ours", "recorded"):
            result.failures[task, row, 0] = f"plan failed ({task}-{row}/command.log): there is no endpoint."
    text = markdown(experiment(), "smoke", SMALL, result)
    assert text.count("there is no endpoint") == 1 and "(move_apple-ours/command.log)" in text


def test_sankey_adds_up_and_loads_nothing(result):
    page = sankey(experiment(), result)
    assert "episodes: 100 %" in page and "success: 70 %" in page and "tracking lost: 20 %" in page
    assert "keypoint wrong: 10 %" in page and 'src="http' not in page
    assert "tracking is lost in 26 % of the rollouts" in page  # the paper's


def test_files_are_written(result, tmp_path):
    for axis in (None, "waypoints"):
        rows = [{"name": "3"}, {"name": "20", "plans": {"waypoints": 20}}]
        spec = experiment(axis=axis, **({"rows": rows, "paper": {}} if axis else {}))
        made = run_grid(cells(spec, SMALL), tmp_path, run=Maker())
        assert plot(spec, made).startswith(b"\x89PNG")
    write_tables(experiment(), "paper", PROTOCOLS["paper"], result, tmp_path / "tables")
    assert {p.name for p in (tmp_path / "tables").iterdir()} == {"table.md", "table.csv", "plot.png", "failures.html"}
