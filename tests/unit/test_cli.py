"""The command line without a simulator: wrong input is told in one line, with a non-zero exit, and loses nothing."""

import argparse
import json
import os
import re
import subprocess
import sys
import zipfile

import pytest

from conftest import ROOT
from scaffoldlab.cli import COMMANDS, common, main
from scaffoldlab.cli.evaluate import find_checkpoint
from scaffoldlab.errors import ScaffoldError
from scaffoldlab.evaluation.replan import Replanner
from scaffoldlab.experiments.grid import cells, plan_of_work
from scaffoldlab.experiments.models import PROTOCOLS, list_experiments, load_experiment
from scaffoldlab.planners.base import Planner
from scaffoldlab.planners.making import scripted_library
from scaffoldlab.plans.library import PlanLibrary
from scaffoldlab.specs.models import load_task


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (
        "SCAFFOLDLAB_BASE_URL",
        "SCAFFOLDLAB_MODEL",
        "SCAFFOLDLAB_API_KEY",
        "OPENAI_API_KEY",
        "OPENAI_BASE_URL",
    ):
        monkeypatch.delenv(name, raising=False)


def run(capsys, *argv) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command."""
    try:
        code = main([str(a) for a in argv])
    except SystemExit as exit:  # of argparse
        code = int(exit.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def error(capsys, *argv) -> str:
    """The one line that a failing command says."""
    code, out, err = run(capsys, *argv)
    assert code == 1 and out == "" and err.startswith("error: ") and "Traceback" not in err
    return err.removeprefix("error: ").strip()


# --- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["plan", "train", "evaluate", "demo"])
def test_unknown_task_is_told_the_nearest_one(command, capsys):
    message = error(capsys, command, "--task", "move_aple")
    assert message.startswith("unknown task 'move_aple'. Did you mean 'move_apple'? Allowed: ")


@pytest.mark.parametrize("given", ["move_apple", "ScaffoldLab-MoveApple-Allegro"])
def test_task_is_known_by_its_name_and_its_env_id(given):
    assert common.task_name(given) == "move_apple"


def test_unknown_env_id_is_told_too(capsys):
    assert "unknown task 'ScaffoldLab-MoveAple-Allegro'" in error(
        capsys, "plan", "--task", "ScaffoldLab-MoveAple-Allegro"
    )


def test_broken_file_of_another_task_does_not_stop_a_command(write_task):
    write_task("broken", lambda data: data.pop("scene"))
    write_task("lift_apple")
    assert common.task_name("ScaffoldLab-LiftApple-Allegro") == "lift_apple"


def test_broken_task_file_is_told_by_the_command(capsys, write_task):
    path = write_task("broken", lambda data: data["termination"].update(treshold=0.1))
    message = error(capsys, "plan", "--task", "broken")
    assert message.startswith(f"{path}: termination.treshold: unknown key 'treshold'. Did you mean 'threshold'?")


# --- arguments ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["plan", "--num-plans", 0], ["--num-plans is 0", "at least 1"]),
        (["plan", "--num-plans", 2, "--noise", -0.01], ["--noise -0.01", "0 or more"]),
        (["train", "--noise", -0.01, "--num-envs", 1], ["--noise -0.01", "0 or more"]),
        (["evaluate", "--noise", -0.01], ["--noise -0.01", "0 or more"]),
        (["demo", "--noise", -0.01, "--num-envs", 1, "--out", "demo"], ["--noise -0.01", "0 or more"]),
        (["train", "--noise", "nan", "--num-envs", 1], ["--noise nan", "0 or more"]),
        (["plan", "--planner", "vlm", "--examples", "good.plans.npz", "--shots", 0], ["--shots 0", "at least 1"]),
        (["plan", "--num-plans", 2, "--waypoints", 1, "--pictures", 0], ["at least 2 waypoints", "got 1"]),
        (["evaluate", "--trials", 0], ["--trials is 0", "at least 1"]),
        (["evaluate", "--episodes", 0], ["--episodes 0", "at least 1"]),
        (["train", "--num-envs", 1, "--out", "run"], ["--num-envs is 1", "at least 8"]),
        (["train", "--minutes", 0, "--out", "run"], ["--minutes 0", "more than 0"]),
        (["train", "--iterations", 0, "--out", "run"], ["--iterations 0", "at least 1"]),
    ],
)
def test_number_outside_its_range_is_told_what_is_allowed(argv, words, capsys):
    command, *rest = argv
    message = error(capsys, command, "--task", "move_apple", *rest)
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], ["COMMAND"]),
        (["plam"], ["invalid choice: 'plam'", "plan", "demo"]),
        (["plan"], ["required: --task"]),
        (["plan", "--task", "move_apple", "--planner", "gpt"], ["invalid choice: 'gpt'", "scripted", "vlm", "replay"]),
        (["plan", "--task", "move_apple", "--num-plans", "many"], ["--num-plans", "invalid int value: 'many'"]),
        (["train", "--task", "move_apple", "--numenvs", "8"], ["unrecognized arguments: --numenvs"]),
    ],
)
def test_argument_that_is_none_is_told_by_argparse(argv, words, capsys):
    code, _, err = run(capsys, *argv)
    assert code == 2
    for word in words:
        assert word in err


@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_what_the_command_does_and_its_defaults(command, capsys):
    code, out, _ = run(capsys, command, "--help")
    assert code == 0 and COMMANDS[command][1:] in " ".join(out.split())
    if command in ("plan", "train", "evaluate"):
        assert "move_apple" in out and "open_drawer" in out and "OVERRIDE" in out


# --- files ----------------------------------------------------------------------------------------------------------


def test_checkpoint_that_is_not_there_is_told_before_anything_is_simulated(capsys):
    message = error(capsys, "evaluate", "--task", "move_apple", "--checkpoint", "nowhere/model.pt")
    assert message.startswith("--checkpoint nowhere/model.pt: no such file.")


def test_file_that_is_no_checkpoint_is_refused_by_name(capsys, tmp_path):
    wrong = tmp_path / "model.pt"
    wrong.write_bytes(b"not a checkpoint")
    message = error(capsys, "evaluate", "--task", "open_drawer", "--checkpoint", wrong, "--episodes", 4)
    assert message.startswith(f"checkpoint {wrong}: not a readable rsl_rl checkpoint")


@pytest.mark.parametrize("which", ["latest", "best"])
def test_no_run_yet_is_told_how_to_train_one(which, capsys):
    message = error(capsys, "evaluate", "--task", "move_apple", "--checkpoint", which)
    assert f"--checkpoint {which}: no run of 'move_apple'" in message
    assert "scaffoldlab train --task move_apple" in message


def test_latest_and_best_checkpoints_are_found(tmp_path):
    times = iter(range(1, 100))

    def make(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
        os.utime(path, (now := next(times), now))
        return path

    logs = tmp_path / "logs/rsl_rl/move_apple"
    make(logs / "2026-01-01/run.json")
    best = make(logs / "2026-01-01/model_best.pt")
    resume = make(logs / "2026-01-01/resume.pt")
    make(logs / "2026-01-02/run.json")
    make(logs / "2026-01-02/model_0.pt")
    last = make(logs / "2026-01-02/model_100.pt")
    make(logs / "2026-01-03/run.json")  # killed before its first checkpoint
    make(tmp_path / "logs/rsl_rl/open_drawer/2026-01-04/run.json")
    assert find_checkpoint("move_apple", "latest") == last.relative_to(tmp_path)
    # The best one of the newest run that has a checkpoint; one by isaaclab keeps no best, so its last one.
    assert find_checkpoint("move_apple", "best") == last.relative_to(tmp_path)
    make(logs / "2026-01-01/run.json")
    assert find_checkpoint("move_apple", "best") == best.relative_to(tmp_path)
    assert find_checkpoint("move_apple", "latest") == resume.relative_to(tmp_path)
    with pytest.raises(ScaffoldError, match="no run of 'open_drawer'"):
        find_checkpoint("open_drawer", "latest")


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_library_of_another_task_is_refused_by_name(command, capsys, tmp_path):
    path = scripted_library(load_task("open_drawer"), count=2, seed=0).save(tmp_path / "drawer.plans.npz")
    message = error(capsys, command, "--task", "move_apple", "--plans", path)
    assert "a plan library of task 'open_drawer'; allowed here: 'move_apple'" in message


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_library_that_is_none_or_not_there_is_refused_by_name(command, capsys, tmp_path):
    wrong = tmp_path / "notes.plans.npz"
    wrong.write_text("not a library")
    assert str(wrong) in error(capsys, command, "--task", "move_apple", "--plans", wrong)
    assert "missing.plans.npz" in error(
        capsys, command, "--task", "move_apple", "--plans", tmp_path / "missing.plans.npz"
    )


def test_planning_with_a_model_needs_an_endpoint(capsys, tmp_path):
    message = error(capsys, "plan", "--task", "move_apple", "--planner", "vlm", "--out", tmp_path / "plans")
    assert "no endpoint" in message and "SCAFFOLDLAB_BASE_URL" in message


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (["--oracle", "keypoints"], "--oracle is for plans by perturbed, vlm, replay; got --planner scripted"),
        (["--votes", "3"], "--votes is for plans by perturbed, vlm; got --planner scripted"),
        (["--check-collisions"], "--check-collisions is for plans by perturbed, vlm, replay"),
        (["--planner", "goal", "--orientation"], "--orientation is for plans by scripted, perturbed, vlm, replay"),
        (["--perturb", "pixel_px=9"], "--perturb is for plans by perturbed; got --planner scripted. Leave it out"),
        (["--recorded", "old.plans.npz"], "--recorded is for plans by prerecorded; got --planner scripted. Leave it"),
        (["--planner", "goal", "--recorded", "x"], "--recorded is for plans by prerecorded; got --planner goal"),
        (["--ledger", "l.jsonl"], "--ledger is for plans by vlm, replay; got --planner scripted. Leave it out, or"),
        (["--planner", "perturbed", "--ledger", "l"], "--ledger is for plans by vlm, replay; got --planner perturbed"),
        (["--examples", "x.plans.npz"], "--examples is for plans by vlm, replay; got --planner scripted. Leave it out"),
        (["--planner", "vlm", "--shots", 3], "--shots is for --examples; got none. Leave it out, or give --examples"),
        (["--shots", 1], "--shots is for --examples; got none"),
    ],
)
def test_options_that_would_change_no_plan_are_refused(option, words, capsys, tmp_path):
    assert words in error(
        capsys, "plan", "--task", "move_apple", "--num-plans", 1, "--pictures", 0, *option, "--out", tmp_path / "plans"
    )
    assert not (tmp_path / "plans").exists()


@pytest.mark.parametrize("command", ["train", "evaluate"])
@pytest.mark.parametrize("noise", [0.03, 0])
def test_noise_beside_plans_that_are_given_is_refused(command, noise, capsys):
    """It is that of the oracle's plans: these would be taken as they are, and their number believed a noisy one."""
    message = error(capsys, command, "--task", "move_apple", "--plans", "mine.plans.npz", "--noise", noise)
    assert message.startswith("--noise is for plans of the oracle; got --plans mine.plans.npz, which are taken as they")
    assert message.endswith("Leave it out, or make noisy plans with `scaffoldlab plan --noise`.")


@pytest.mark.parametrize("name", list_experiments())
def test_options_that_experiments_give_are_not_refused(name, capsys, monkeypatch, tmp_path):
    """They give ``plan`` its noise also where it is 0, and no picture."""

    class Allowed(Exception):
        pass

    def allowed(*_):
        raise Allowed

    for command in ("plan", "train", "evaluate"):
        monkeypatch.setattr(f"scaffoldlab.cli.{command}.task_name", allowed)  # what comes after the options
    grid = cells(load_experiment(name), PROTOCOLS["quick"])
    kinds = set()
    for artefact in plan_of_work(grid, tmp_path):
        if artefact.kind in ("plan", "train", "evaluate"):
            kinds.add(artefact.kind)
            with pytest.raises(Allowed):
                main([str(word) for word in artefact.command(tmp_path)[3:]])
    assert {"plan", "evaluate"} <= kinds


def test_options_that_would_do_nothing_are_refused(capsys, tmp_path):
    message = error(capsys, "keypoints", "--task", "move_apple", "--votes", "3")
    assert "--votes is for plans by perturbed, vlm; `scaffoldlab keypoints` does not take it." in message
    deploy = (
        "deploy",
        "--task",
        "move_apple",
        "--policy",
        "p",
        "--capture",
        "c",
        "--tracker",
        "t",
        "--robot",
        "udp://h:1",
    )
    assert "--waypoints and --ledger are for --planner" in error(capsys, *deploy, "--plan", "l", "--waypoints", "5")


def test_replay_needs_a_ledger(capsys, tmp_path):
    message = error(capsys, "plan", "--task", "move_apple", "--planner", "replay", "--out", tmp_path / "plans")
    assert "move_apple-replay.ledger.jsonl" in message


def test_demo_does_not_go_on_with_the_run_of_another_seed(capsys, tmp_path):
    settings = {"task": "move_apple", "planner": "scripted", "model": None, "noise": 0.0, "seed": 0}
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo/settings.json").write_text(json.dumps(settings))
    message = error(capsys, "demo", "--seed", 1, "--out", tmp_path / "demo")
    assert message.startswith(f"{tmp_path / 'demo/settings.json'}: what is here was made with seed = 0; got 1.")
    assert json.loads((tmp_path / "demo/settings.json").read_text()) == settings


def test_training_does_not_go_on_with_other_settings(capsys, tmp_path):
    settings = {"task": "move_apple", "seed": 0}
    (tmp_path / "run").mkdir()
    (tmp_path / "run/settings.json").write_text(json.dumps(settings))
    message = error(capsys, "train", "--task", "open_drawer", "--out", tmp_path / "run")
    assert "settings.json: what is here was made with task = move_apple; got open_drawer." in message
    assert json.loads((tmp_path / "run/settings.json").read_text()) == settings


# --- what a command leaves behind -----------------------------------------------------------------------------------


def plan(capsys, out, *argv):
    return run(capsys, "plan", "--task", "move_apple", "--num-plans", 4, "--pictures", 0, "--out", out, *argv)


def test_scripted_plans_are_written_and_their_path_is_printed(capfd, tmp_path):
    assert plan(capfd, tmp_path / "out", "--seed", 3)[0] == 0
    path = tmp_path / "out/move_apple-scripted-seed3.plans.npz"
    library = PlanLibrary.load(path, task="move_apple")
    assert library.digest == scripted_library(load_task("move_apple"), count=4, seed=3).digest


def test_program_says_where_the_plans_are(tmp_path):
    """In a process of its own, where standard error is a real one."""
    command = [
        sys.executable,
        "-m",
        "scaffoldlab",
        "plan",
        "--task",
        "move_apple",
        "--num-plans",
        "4",
        "--pictures",
        "0",
    ]
    done = subprocess.run([*command, "--out", "out"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "4 of 4 plans by scripted: out/move_apple-scripted-seed0.plans.npz" in done.stderr.splitlines()
    assert done.stdout == ""


def test_interrupted_command_exits_with_130_and_says_how_to_go_on(capsys, monkeypatch):
    from scaffoldlab.cli import schema

    def interrupted(args: argparse.Namespace) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(schema, "run", interrupted)
    code, _, err = run(capsys, "schema")
    assert code == 130 and "run the same command to go on" in err


def test_failing_write_keeps_the_library_that_was_there(capsys, tmp_path, small_disk):
    path = small_disk / "move_apple-scripted-seed0.plans.npz"
    assert plan(capsys, small_disk)[0] == 0
    before = path.read_bytes()
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            pass
    code, _, err = run(capsys, "plan", "--task", "move_apple", "--num-plans", 64, "--pictures", 0, "--out", small_disk)
    assert code == 1 and "No space left on device" in err and "Free space on that disk" in err
    assert path.read_bytes() == before
    assert {p.name for p in small_disk.iterdir()} == {path.name, "filler", "move_apple-scripted-seed0.log"}
    filler.unlink()
    assert plan(capsys, small_disk)[0] == 0


def test_library_output_goes_to_the_log_and_the_users_to_the_screen(tmp_path):
    code = """
import os, subprocess, sys
from pathlib import Path
from scaffoldlab.cli import common
with common.quiet(Path(sys.argv[1])) as console:
    print("from Python")
    os.write(1, b"from C\\n")
    subprocess.run([sys.executable, "-c", "print('from a child')"], check=True)
    console.print("for the user: " + 200 * "x")
print("after")
"""
    log = tmp_path / "log/console.log"
    done = subprocess.run([sys.executable, "-c", code, log], capture_output=True, text=True, check=True)
    assert done.stdout == "after\n"
    assert done.stderr == f"for the user: {200 * 'x'}\n"  # a long path must be in one piece to be copied
    assert set(log.read_text().splitlines()) == {"from Python", "from C", "from a child"}


def test_standard_output_comes_back_after_an_error(tmp_path, capfd):
    with pytest.raises(RuntimeError), common.quiet(tmp_path / "console.log"):
        raise RuntimeError
    os.write(1, b"here again")
    assert capfd.readouterr().out == "here again"


def test_last_words_of_a_library_are_shown_when_it_gives_up(tmp_path):
    code = """
import os, sys
from pathlib import Path
from scaffoldlab.cli import common
with common.quiet(Path(sys.argv[1])):
    for line in range(100):
        print("line", line)
    sys.stdout.flush()
    os.write(2, b"no such [option]\\n")
    sys.exit(3)
"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "log"], capture_output=True, text=True)
    assert done.returncode == 3 and done.stdout == ""
    assert done.stderr.splitlines() == [f"line {n}" for n in range(81, 100)] + ["no such [option]"]


# --- the program ----------------------------------------------------------------------------------------------------


def test_module_and_script_are_the_same_program():
    done = subprocess.run(
        [sys.executable, "-m", "scaffoldlab", "--version"], capture_output=True, text=True, check=True
    )
    assert re.fullmatch(r"scaffoldlab \d+\.\d+\.\d+\n", done.stdout)
    assert 'scaffoldlab = "scaffoldlab.cli:main"' in (ROOT / "pyproject.toml").read_text()


def test_schema_can_be_piped_into_a_file(capsys):
    code, out, err = run(capsys, "schema", "scene")
    assert code == 0 and err == "" and json.loads(out)["title"] == "SceneSpec"


# --- planning again -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (["--perturb", "pixel_px=9"], "--perturb is for plans by perturbed; got no --replan"),
        (["--perturb", "pixel_px=9", "--replan", "vlm"], "--perturb is for plans by perturbed; got --replan vlm"),
        (["--ledger", "l.jsonl", "--replan"], "--ledger is for plans by vlm, replay; got --replan scripted"),
        (["--replan-error", 0.02], "--replan-error is for plans by scripted, perturbed, vlm, replay; got no --replan"),
        (["--replan-steps", 1], "--replan-steps is for plans by scripted, perturbed, vlm, replay; got no --replan"),
        (["--votes", 3, "--replan"], "--votes is for plans by perturbed, vlm; got --replan scripted"),
        (["--oracle", "keypoints"], "--oracle is for plans by perturbed, vlm, replay; got no --replan"),
    ],
)
def test_options_of_other_planners_that_plan_again_are_refused(option, words, capsys):
    assert words in error(capsys, "evaluate", "--task", "move_apple", *option)


@pytest.mark.parametrize(
    ("planner", "words"),
    [
        ("vlm", ["no endpoint", "SCAFFOLDLAB_BASE_URL"]),
        ("replay", ["report/replan.ledger.jsonl", "cannot be read"]),
    ],
)
def test_planning_again_needs_an_endpoint_or_a_ledger_before_anything_is_simulated(planner, words, capsys, tmp_path):
    with zipfile.ZipFile(tmp_path / "model.pt", "w"):
        pass  # as far as it is looked at before the simulation is open
    plans = scripted_library(load_task("move_apple"), count=1, seed=0).save(tmp_path / "one.plans.npz")
    message = error(
        capsys, "evaluate", "--task", "move_apple", "--checkpoint", "model.pt", "--plans", plans, "--replan", planner,
        "--out", "report",
    )  # fmt: skip
    for word in words:
        assert word in message


def test_replanner_needs_a_plan_at_a_time():
    class Any(Planner):
        name, needs_image = "any", False

    with pytest.raises(ScaffoldError, match="concurrency 0, .* at least 1"):
        Replanner(Any(), concurrency=0)


def test_fresh_demo_deletes_an_earlier_demo_and_nothing_else(tmp_path, capsys):
    (kept := tmp_path / "thesis.tex").write_text("years of work")
    assert main(["demo", "--fresh", "--out", str(tmp_path), "--noise", "0.01"]) == 1
    assert "--fresh deletes the folder of an earlier demo" in capsys.readouterr().err and kept.is_file()
