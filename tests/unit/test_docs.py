"""The documentation says what is true: commands parse, links lead somewhere, examples run, fields and keys exist."""

import argparse
import ast
import importlib
import re
import shlex
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import ROOT
from scaffoldlab.cli import COMMANDS, main
from scaffoldlab.cli.demo import SPLITS
from scaffoldlab.evaluation.report import METRICS
from scaffoldlab.planners.making import scripted_library
from scaffoldlab.planners.points import CONVENTIONS
from scaffoldlab.specs.models import CpuTrainingSpec, DriveSpec, GraspSpec, InitialStateSpec, TaskSpec, load_task
from scaffoldlab.specs.paths import list_named

DOCS = ROOT / "docs"
PAGES = [ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG")]
PAGES += sorted(page for page in DOCS.rglob("*.md") if "_build" not in page.parts)
PHYSICS = typing.get_args(typing.get_args(DriveSpec.model_fields["armature"].annotation)[0])
PRESETS = ("cpu", "paper", "randomized")
FENCE = re.compile(r"^(`{3,})([^\n]*)\n(.*?)^\1\s*$", re.MULTILINE | re.DOTALL)
EXAMPLE = re.compile(r"<!-- example: (\S+) -->\n```yaml\n(.*?)```", re.DOTALL)


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path, *languages: str) -> list[str]:
    """Contents of the fenced blocks of these languages."""
    return [content for _, info, content in FENCE.findall(page.read_text()) if info.strip() in languages]


def prose(page: Path) -> str:
    """The page without code: only fenced blocks that are directives stay."""
    return FENCE.sub(lambda fence: fence[3] if fence[2].startswith("{") else "", page.read_text())


def commands(page: Path) -> Iterator[list[str]]:
    """Words of every command of ours that the page shows, in bash blocks and as inline code with arguments."""
    lines = [line for block in blocks(page, "bash") for line in block.replace("\\\n", " ").splitlines()]
    inline = re.findall(r"`((?:scripts/run|scaffoldlab|make|isaaclab) [^`]+)`", prose(page))
    for line in lines + inline:
        words = shlex.split(line, comments=True)
        while words and re.match(r"\w+=", words[0]):
            words.pop(0)
        if words[:1] == ["scripts/run"]:
            words.pop(0)
        if words[:1] and words[0] in ("scaffoldlab", "isaaclab", "make", "python"):
            yield words


ALL_COMMANDS = [(page, words) for page in PAGES for words in commands(page)]


def of(program: str) -> list:
    found = {" ".join(words): (page, words[1:]) for page, words in ALL_COMMANDS if words[0] == program}
    return [pytest.param(*value, id=f"{page_id(value[0])}: {name}") for name, value in found.items()]


def is_placeholder(word: str) -> bool:
    """Whether the reader has to put something there: ``NAME``, ``CMD...``, ``my_task``."""
    return word.isupper() or word.endswith("...") or word.startswith("my_")


@pytest.fixture
def parsed(monkeypatch) -> typing.Callable[[list[str]], argparse.Namespace]:
    """Parses the arguments of ``scaffoldlab`` with the real parser, without running the command."""
    caught: list[argparse.Namespace] = []
    for name in COMMANDS:
        monkeypatch.setattr(importlib.import_module(f"scaffoldlab.cli.{name}"), "run", caught.append)

    def parse(argv: list[str]) -> argparse.Namespace:
        assert main(argv) == 0
        return caught.pop()

    return parse


def example_tasks() -> dict[str, str]:
    """Text of the example task files by task name."""
    found = EXAMPLE.findall((DOCS / "tasks.md").read_text())
    return {Path(path).parent.name: text for path, text in found}


# --- commands -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("page", "argv"), of("scaffoldlab"))
def test_documented_command_parses(page, argv, parsed):
    if is_placeholder(argv[0]):
        return
    if len(argv) == 1:  # the command is only named
        assert argv[0] in COMMANDS
        return
    args = parsed(argv)
    task = getattr(args, "task", None)
    assert task is None or is_placeholder(task) or task in [*list_named("task"), *example_tasks()]
    assert all("=" in override for override in getattr(args, "overrides", []))


def test_documentation_shows_every_command():
    assert {words[1] for _, words in ALL_COMMANDS if words[0] == "scaffoldlab" and len(words) > 1} >= set(COMMANDS)


@pytest.mark.parametrize(("page", "argv"), of("isaaclab"))
def test_documented_isaaclab_command_names_what_exists(page, argv):
    assert argv[0] in ("train", "play", "zero_agent", "random_agent", "list_envs")
    if "--task" in argv:
        ids = {load_task(name).task.env_id for name in list_named("task")}
        assert argv[argv.index("--task") + 1] in ids
    if "--rl_library" in argv:
        assert argv[argv.index("--rl_library") + 1] in ("rsl_rl", "skrl", "rl_games")


@pytest.mark.parametrize(("page", "argv"), of("make"))
def test_documented_make_target_exists(page, argv):
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert argv[0] in targets


@pytest.mark.parametrize(("page", "argv"), of("python"))
def test_documented_script_exists(page, argv):
    if argv[0] == "-m":
        assert argv[1] == "pytest" and (ROOT / argv[2]).is_dir()
        return
    script = ROOT / argv[0]
    assert script.is_file()
    for option in argv[1:]:
        if option.startswith("--"):
            assert f'"{option}"' in script.read_text()


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_documented_presets_exist(page):
    text = page.read_text()
    for name in re.findall(r"\bphysics=([\w|]+)", text):
        assert set(name.split("|")) <= set(PHYSICS)
    for names in re.findall(r"\bpresets=([\w,|]+)", text):
        assert set(re.split(r"[,|]", names)) <= set(PRESETS)


@pytest.mark.parametrize("name", ["planners", "vlm", "evaluation", "tasks"])
def test_documented_option_exists(name, capsys):
    known = set(re.findall(r'"(--[\w-]+)"', (ROOT / "scripts/search_grasp.py").read_text())) | {"--keyword"}
    for command in COMMANDS:
        with pytest.raises(SystemExit):
            main([command, "--help"])
        known |= set(re.findall(r"--[\w-]+", capsys.readouterr().out))
    assert set(re.findall(r"`(--[\w-]+)", prose(DOCS / f"{name}.md"))) <= known


def test_defaults_that_the_readme_quotes_are_the_real_ones(parsed):
    args = parsed(["demo", "--seed", "0"])
    readme = (ROOT / "README.md").read_text()
    assert f"{args.target:.0%}".replace("%", " %") in readme
    assert f"or {args.minutes:g} minutes are over" in readme
    assert f"{SPLITS['train']} training plans" in readme
    assert f"{SPLITS['validation']} validation states" in readme
    assert f"{SPLITS['test']} states" in readme


# --- links ----------------------------------------------------------------------------------------------------------


def slug(heading: str) -> str:
    """Anchor of a heading, as GitHub and MyST make it."""
    text = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def links(page: Path) -> list[str]:
    found = re.findall(r"\]\(([^)\s]+)\)", prose(page))
    found += re.findall(r"^`{3,}\{(?:include|figure|image)\}\s+(\S+)", page.read_text(), re.MULTILINE)
    return [link for link in found if not re.match(r"\w+:", link)]


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_relative_link_leads_somewhere(page):
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = page if not path else page.parent / path
        assert target.exists(), link
        if anchor:
            anchors = {slug(heading) for heading in re.findall(r"^#+ (.*)$", prose(target), re.MULTILINE)}
            assert anchor in anchors, link


def test_the_check_of_links_sees_pictures_and_includes():
    assert "docs/images/move_apple_plan.png" in links(ROOT / "README.md")
    assert "images/move_apple_plan.png" in links(DOCS / "index.md")
    assert "numbers/move_apple.md" in links(DOCS / "reproduce.md")


def test_every_decision_is_in_the_index():
    listed = re.search(r"\{toctree\}\n:maxdepth: 1\n\n(.*?)```", (DOCS / "decisions/index.md").read_text(), re.DOTALL)
    assert listed is not None
    assert set(listed[1].split()) == {p.stem for p in (DOCS / "decisions").glob("*.md")} - {"index"}


def test_code_that_refers_to_a_page_finds_it():
    for file in [*ROOT.glob("source/**/*.py"), *ROOT.glob("assets/**/*.yaml"), *ROOT.glob("tasks/*/task.yaml")]:
        for path in re.findall(r"\bdocs/[\w./-]*\w", file.read_text()):
            assert (ROOT / path).exists(), f"{page_id(file)}: {path}"


def test_a_table_is_there_for_every_case_of_the_reliability_benchmark():
    tree = ast.parse((ROOT / "benchmarks/reliability.py").read_text())
    (cases,) = (
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "CASES"
    )
    for case in ast.literal_eval(cases):
        assert f"numbers/{case}.md" in links(DOCS / "reproduce.md")


# --- examples -------------------------------------------------------------------------------------------------------


def test_example_task_loads_and_the_oracle_plans_it(extra_root):
    assert example_tasks()
    for name, text in example_tasks().items():
        path = extra_root / "tasks" / name / "task.yaml"
        path.parent.mkdir(parents=True)
        path.write_text(text)
        composition = load_task(name)
        library = scripted_library(composition, count=8, seed=0)
        assert len(library) == 8 and library.header["failures"] == {}
        assert composition.task.env_id in (DOCS / "tasks.md").read_text()


PYTHON = [(page, number, code) for page in PAGES for number, code in enumerate(blocks(page, "python"))]


@pytest.mark.parametrize(("page", "number", "code"), PYTHON, ids=[f"{page_id(p)}:{n}" for p, n, _ in PYTHON])
def test_python_example_runs(page, number, code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for node in ast.parse(code).body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("scaffoldlab."):
            source = (ROOT / "source" / node.module.replace(".", "/")).with_suffix(".py").read_text()
            for alias in node.names:
                assert re.search(rf"^(def|class) {alias.name}\b", source, re.MULTILINE), alias.name
    if "scaffoldlab.tasks" not in code:  # what opens an env is for the tests with a simulator
        exec(compile(code, page_id(page), "exec"), {"__name__": "example"})


# --- tables ---------------------------------------------------------------------------------------------------------


def test_every_field_of_a_task_is_documented():
    text = (DOCS / "tasks.md").read_text()
    fields = set(TaskSpec.model_fields) - {
        "name",
        "keypoints",
        "initial_state",
        "grasp",
        "prompt",
        "termination",
        "cpu",
    }
    nested = {
        "initial_state": InitialStateSpec,
        "grasp": GraspSpec,
        "prompt": TaskSpec.model_fields["prompt"].annotation,
        "termination": TaskSpec.model_fields["termination"].annotation,
        "cpu": CpuTrainingSpec,
    }
    fields |= {f"{name}.{field}" for name, spec in nested.items() for field in typing.cast(type, spec).model_fields}
    for field in sorted(fields | {"keypoints"}):
        assert f"`{field}`" in text, field


def test_the_table_of_agents_is_the_code():
    tree = ast.parse((ROOT / "source/scaffoldlab/tasks/agents.py").read_text())
    (numbers,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "PpoNumbers")
    fields = [node for node in numbers.body if isinstance(node, ast.AnnAssign)]
    paper = {ast.unparse(node.target): ast.literal_eval(typing.cast(ast.expr, node.value)) for node in fields}
    (change,) = (
        node.value for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "CPU"
    )
    cpu = paper | {k.arg: ast.literal_eval(k.value) for k in typing.cast(ast.Call, change).keywords if k.arg}
    rows = {
        "iterations": "iterations",
        "network": "hidden",
        "steps per env and iteration": "steps_per_env",
        "epochs, mini-batches": "epochs mini_batches",
        "learning rate, ceiling": "learning_rate max_learning_rate",
        "entropy": "entropy",
        "initial standard deviation": "init_std",
    }
    text = (DOCS / "training.md").read_text()
    for row, names in rows.items():
        cells = re.search(rf"^\| {row} \| (.*) \| (.*) \|$", text, re.MULTILINE)
        assert cells is not None, row
        for cell, preset in zip(cells.groups(), (cpu, paper), strict=True):
            expected = [value for name in names.split() for value in _flat(preset[name])]
            assert [float(number) for number in cell.split(", ")] == expected, row


def _flat(value) -> list:
    return list(value) if isinstance(value, tuple) else [value]


def test_every_metric_is_documented():
    text = (DOCS / "evaluation.md").read_text()
    for key in METRICS:
        assert f"`{key}`" in text, key


def test_every_point_convention_is_documented():
    text = (DOCS / "vlm.md").read_text()
    for name in CONVENTIONS:
        assert f"| `{name}` |" in text, name


def test_planners_are_listed_as_the_command_has_them():
    parser = argparse.ArgumentParser()
    importlib.import_module("scaffoldlab.cli.plan").add_arguments(parser)
    (choices,) = (action.choices for action in parser._actions if "--planner" in action.option_strings)
    table = (DOCS / "planners.md").read_text().partition("| `--planner` |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(choices)
