"""Importing is fast and light, and dependencies point one way, from the command line down to the core."""

import ast
import statistics
import subprocess
import sys

import pytest

from conftest import ROOT

HEAVY = ("torch", "isaaclab", "warp", "openai", "pxr", "gymnasium", "matplotlib")
LIGHT = ("torch", "isaaclab", "warp", "openai")
CORE = (
    "camera",
    "deployment.capture",
    "deployment.devices",
    "deployment.policy",
    "deployment.tracker",
    "deployment.udp_robot",
    "errors",
    "evaluation.episodes",
    "evaluation.report",
    "files",
    "geometry",
    "keypoints.keypoint",
    "planners.base",
    "planners.endpoint",
    "planners.ledger",
    "planners.making",
    "planners.perturbed",
    "planners.refine",
    "planners.replay",
    "planners.scripted",
    "planners.vlm",
    "plans.draw",
    "plans.library",
    "plans.plan",
    "plans.reach",
    "plans.targets",
    "plans.validation",
    "specs.bodies",
    "specs.feasible",
    "specs.initial_state",
    "specs.models",
    "specs.paths",
)
LAYERS = (
    {"errors", "files", "templates", "geometry", "camera", "usd", "keypoints", "specs", "plans", "planners"},
    {"robots"},
    {"terms"},
    {"tasks"},
    {"evaluation", "training", "imitation", "deployment", "scan"},
    {"experiments"},
    {"cli"},
)
"""Lowest first; each may import itself and those below."""


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def loaded(imports: str, names: tuple[str, ...]) -> str:
    return run(
        f"import sys\nfor m in {imports.split()}: __import__(m)\nprint(*(m for m in {names} if m in sys.modules))"
    )


def test_importing_the_package_takes_less_than_300_ms():
    timed = "import time; t = time.perf_counter(); import scaffoldlab; print(time.perf_counter() - t)"
    seconds = statistics.median(float(run(timed)) for _ in range(3))
    print(f"import scaffoldlab: {1000 * seconds:.1f} ms")
    assert seconds < 0.3


def test_importing_the_package_imports_nothing_heavy():
    assert loaded("scaffoldlab", (*HEAVY, "numpy", "pydantic")) == ""


def test_core_imports_neither_torch_nor_isaaclab_nor_warp_nor_openai():
    assert loaded(" ".join(f"scaffoldlab.{name}" for name in CORE), LIGHT) == ""


def test_command_line_shows_its_help_without_anything_heavy():
    commands = " ".join(f"scaffoldlab.cli.{path.stem}" for path in (ROOT / "source/scaffoldlab/cli").glob("*.py"))
    assert loaded(commands.replace(".__init__", ""), HEAVY) == ""


@pytest.mark.parametrize("layer", range(len(LAYERS)), ids=lambda i: "+".join(sorted(LAYERS[i])[:2]))
def test_dependencies_point_one_way(layer):
    package = ROOT / "source/scaffoldlab"
    above = set().union(*LAYERS[layer + 1 :])
    for name in sorted(LAYERS[layer]):
        files = (
            [package / f"{name}.py"] if (package / f"{name}.py").exists() else sorted((package / name).rglob("*.py"))
        )
        assert files, name
        for file in files:
            found = {part.split(".")[1] for part in _imports(file) if part.startswith("scaffoldlab.")}
            assert not found & above, f"{file.relative_to(package)} imports {sorted(found & above)}"


def test_every_module_belongs_to_a_layer():
    package = ROOT / "source/scaffoldlab"
    modules = {path.stem for path in package.glob("*.py")} | {
        path.parent.name for path in package.glob("*/__init__.py")
    }
    assert modules - set().union(*LAYERS) == {"__init__", "__main__"}


def _imports(file) -> set[str]:
    """Every module that a file imports anywhere, those for type checking included."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found
