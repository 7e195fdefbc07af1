"""scripts/setup, with an interpreter that only pretends to install: made once, reused, recovered when half made."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PRETENDER = """#!/bin/bash
# Stands for Python 3.12 and uv, and writes down what it is asked for.
echo "$*" >> "$PRETENDED"
case "$*" in
    "-c import sys; print(sys.executable)") echo "$0" ;;
    "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && cp "$0" "$3/bin/uv" ;;
    "pip install"*) [ -z "$FAILS" ] || exit 1 ;;
    "setup.py"*) mkdir -p source/scaffoldlab.egg-info && touch source/scaffoldlab.egg-info/entry_points.txt ;;
esac
"""


@pytest.fixture
def clone(tmp_path):
    """A clone with the real script and made-up pins."""
    root = tmp_path / "clone"
    (root / "scripts").mkdir(parents=True)
    (root / "source").mkdir()
    shutil.copy(ROOT / "scripts/setup", root / "scripts/setup")
    (root / "requirements.lock").write_text("something==1.0\n")
    (root / "pyproject.toml").touch()
    for name, text in (("python3.12", PRETENDER), ("df", "#!/bin/bash\necho; echo disk 0 0 $((FREE_GB << 20))\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    return root


def run(clone, *arguments, fails="", free_gb=100) -> tuple[subprocess.CompletedProcess, list[str]]:
    """Runs the script, and returns what it asked the interpreter for."""
    log = clone.parent / "pretended"
    log.write_text("")
    path = f"{clone.parent}:{os.environ['PATH']}"
    variables = {"PYTHON312": str(clone.parent / "python3.12"), "SCAFFOLDLAB_ENVS": str(clone.parent / "envs"),
                 "PRETENDED": str(log), "FAILS": fails, "FREE_GB": str(free_gb), "PATH": path}  # fmt: skip
    done = subprocess.run(
        [clone / "scripts/setup", *arguments], capture_output=True, text=True, env=os.environ | variables
    )
    return done, [line for line in log.read_text().splitlines() if not line.startswith("-c")]


def installs(asked) -> list[str]:
    return [line for line in asked if line.startswith("pip install")]


def test_environment_is_made_once_and_its_path_printed_last(clone):
    done, asked = run(clone)
    assert done.returncode == 0 and len(installs(asked)) == 1
    env = Path(done.stdout.splitlines()[-1])
    assert env.parent == clone.parent / "envs" and (env / ".scaffoldlab-complete").is_file()
    assert "installing 1 pinned packages" in done.stderr
    again, asked = run(clone)
    assert (again.stdout, asked) == (done.stdout, [])


def test_other_pins_are_another_environment(clone):
    first, _ = run(clone)
    (clone / "requirements.lock").write_text("something==1.1\n")
    second, asked = run(clone)
    assert first.stdout != second.stdout and len(installs(asked)) == 1


def test_half_made_environment_is_made_anew(clone):
    done, _ = run(clone, fails="yes")
    assert done.returncode != 0
    (half_made,) = (p for p in (clone.parent / "envs").iterdir() if p.is_dir())
    (half_made / "left over").touch()
    done, asked = run(clone)
    assert done.returncode == 0 and "removing a half-made environment" in done.stderr and len(installs(asked)) == 1
    assert not (half_made / "left over").exists()


def test_full_disk_is_told_before_anything_is_installed(clone):
    done, asked = run(clone, free_gb=11)
    assert done.returncode == 1 and installs(asked) == []
    assert "has 11 GB free and 12 GB are needed: free some, or set SCAFFOLDLAB_ENVS" in done.stderr


def test_path_is_told_without_making_anything(clone):
    done, asked = run(clone, "--path")
    assert not Path(done.stdout.strip()).exists() and asked == []


def test_clones_share_an_environment_and_have_metadata_of_their_own(clone):
    run(clone)
    other = shutil.copytree(clone, clone.parent / "other")
    shutil.rmtree(other / "source/scaffoldlab.egg-info")
    done, asked = run(other)
    assert installs(asked) == [] and done.returncode == 0
    assert (other / "source/scaffoldlab.egg-info/entry_points.txt").is_file()
