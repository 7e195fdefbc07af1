"""What the tests share: task folders of their own, and the one simulation that a process can hold open."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from scaffoldlab.specs import models

ROOT = Path(__file__).resolve().parents[1]

LONGEST_FIRST = [
    "test_env_ovphysx.py",
    "test_training.py",
    "test_commands.py",
    "test_experiment.py",
    "test_scan_scene.py",
]
"""Files of simulator tests that take minutes: begun last, one of them would keep one core waiting for the other."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts them first; it wants ``--no-loadscope-reorder``, or xdist sorts by the number of tests.

    In a file, the tests with an env of one ``task`` stand together, where the first of them was: opening it again for
    the next one takes seconds.
    """
    rank = {name: number for number, name in enumerate(LONGEST_FIRST)}
    first: dict[object, int] = {}

    def group(item: pytest.Item) -> object:
        simulated = "simulation" in getattr(item, "fixturenames", ())
        params = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        return item.path, params.get("task") if simulated else None

    for number, item in enumerate(items):
        first.setdefault(group(item), number)
    items.sort(key=lambda item: (rank.get(item.path.name, len(rank)), first[group(item)]))


@pytest.fixture
def extra_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder with a project's layout, named by SCAFFOLDLAB_PATH; tasks are read again before and after."""
    root = tmp_path / "extra"
    root.mkdir()
    monkeypatch.setenv("SCAFFOLDLAB_PATH", str(root))
    models.load_task.cache_clear()
    yield root
    models.load_task.cache_clear()


@pytest.fixture
def write_task(extra_root: Path) -> Callable[..., Path]:
    """Writes ``name/task.yaml``: the text of an existing task, with its data changed in place by a function."""

    def write(name: str, change: Callable[[dict[str, Any]], object] = lambda data: None, base: str = "move_apple"):
        return write_yaml(extra_root / "tasks" / name / "task.yaml", ROOT / "tasks" / base / "task.yaml", change)

    return write


@pytest.fixture
def write_scene(extra_root: Path) -> Callable[..., Path]:
    """The same for ``assets/scenes/name/scene.yaml``."""

    def write(name: str, change: Callable[[dict[str, Any]], object], base: str = "kitchen_counter"):
        scenes = "assets/scenes"
        return write_yaml(extra_root / scenes / name / "scene.yaml", ROOT / scenes / base / "scene.yaml", change)

    return write


def write_yaml(path: Path, source: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """Writes the changed data of one YAML file to another."""
    data = yaml.safe_load(source.read_text())
    change(data)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return path


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small tmpfs needs root")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


class Simulation:
    """Opens envs one after the other: a process holds one simulation, and an env that fits is used again."""

    def __init__(self) -> None:
        self._stack, self._key, self._env = ExitStack(), None, None

    def env(
        self,
        task: str = "move_apple",
        *,
        num_envs: int = 64,
        overrides: tuple[str, ...] = (),
        change: Callable[[Any], object] | None = None,
    ) -> Any:
        """The env of a task on the CPU, whatever was open before closed; its plan command is as if newly made.

        Args:
            task: Task name.
            num_envs: Number of envs.
            overrides: Hydra overrides and presets.
            change: Changes the configuration in place; such an env is never used again.
        """
        from scaffoldlab.specs.models import load_task
        from scaffoldlab.tasks.simulation import make_cfg, open_cfg

        key = (task, num_envs, overrides)
        if change is not None or key != self._key:
            self.close()
            cfg = make_cfg(task, num_envs=num_envs, device="cpu", seed=0, overrides=overrides)
            if change is not None:
                change(cfg)
            self._env = self._stack.enter_context(open_cfg(cfg, load_task(task).task.env_id))
            self._key = None if change is not None else key
        plan = self._env.command_manager.get_term("plan")
        plan.lenient = False
        plan.assign(None)
        self._env.common_step_counter = 0  # the curriculum begins again
        plan._measured_at = -1
        return self._env

    def close(self) -> None:
        """Closes the env, if one is open."""
        self._key = self._env = None
        self._stack.close()


@pytest.fixture(scope="session")
def simulation() -> Iterator[Simulation]:
    """The one simulation of this process."""
    opened = Simulation()
    yield opened
    opened.close()
