"""The search for grasps runs as its user runs it, and prints what a task file takes."""

import re
import subprocess
import sys

import pytest
import yaml

from conftest import ROOT
from scaffoldlab.specs.models import GraspSpec, load_task
from scaffoldlab.usd.reader import joint_limits

CLEARANCE = 0.05
"""A little more than the apple's own."""


@pytest.fixture(scope="module")
def output() -> str:
    """One generation around the apple's own posture, without noise."""
    search = [sys.executable, ROOT / "scripts/search_grasp.py", "--task", "move_apple", "--open"]
    few = ["--generations", "1", "--candidates", "4", "--trials", "2", "--noise", "0", "--clearance", str(CLEARANCE)]
    done = subprocess.run([*search, *few], capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_posture_of_the_task_succeeds_in_the_search(output):
    assert re.search(r"^generation 0: mean candidate 1\.00 ", output, re.M)


def test_result_is_a_grasp_that_keeps_to_the_limits(output):
    found = yaml.safe_load(output[output.index("roll_deg:") :])
    own = load_task("move_apple")
    grasp = GraspSpec(**{name: found[name] for name in ("center", "open", "close")})
    assert grasp.center[0] >= CLEARANCE
    limits = joint_limits(own.usd(own.robot.usd))
    for posture in (grasp.open, grasp.close):
        joints = [angle for finger in own.robot.fingers for angle in posture[finger]]
        for name, angle in zip(own.robot.finger_joints, joints, strict=True):
            assert limits[name][0] - 1e-3 <= angle <= limits[name][1] + 1e-3
    assert grasp.open["index"] != own.task.grasp.open["index"]
