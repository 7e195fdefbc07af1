"""A keypoint rides on its body, and a located point finds the body that it lies on."""

import math
import subprocess
import sys

import numpy as np
import pytest

from scaffoldlab.errors import ScaffoldError
from scaffoldlab.keypoints.keypoint import Keypoint, keypoint_positions, keypoint_snapped

QUARTER = math.sqrt(0.5)
POSES = {
    "apple": np.array((0.4, 0.1, 0.2, 0, 0, QUARTER, QUARTER)),  # yaw of 90 deg
    "board": np.array((0.5, -0.2, 0.0, 0, 0, 0, 1)),
}
SURFACES = {
    "apple": np.array(((0.04, 0, 0), (-0.04, 0, 0), (0, 0.04, 0), (0, 0, 0.04))),
    "board": np.array(((0, 0, 0.01), (0.1, 0, 0.01), (0.1, 0.1, 0.01))),
}


def test_keypoint_turns_and_moves_with_its_body():
    keypoints = (Keypoint("stem", "apple", (0.04, 0, 0.01)), Keypoint("middle", "board", (0, 0, 0.01)))
    np.testing.assert_allclose(keypoint_positions(keypoints, POSES), ((0.4, 0.14, 0.21), (0.5, -0.2, 0.01)), atol=1e-12)


def test_located_point_snaps_to_the_nearest_sample_of_any_body():
    # The apple's sample (0.04, 0, 0) is at (0.4, 0.14, 0.2) in the env frame.
    keypoint, distance = keypoint_snapped(np.array((0.4, 0.16, 0.2)), "apple", SURFACES, POSES)
    assert keypoint == Keypoint("apple", "apple", (0.04, 0.0, 0.0))
    assert distance == pytest.approx(0.02)

    keypoint, distance = keypoint_snapped(np.array((0.6, -0.13, 0.01)), "apple", SURFACES, POSES)
    assert keypoint == Keypoint("apple", "board", (0.1, 0.1, 0.01))
    assert distance == pytest.approx(0.03)


def test_located_point_far_from_every_surface_is_refused():
    with pytest.raises(ScaffoldError, match=r"'apple': located at .* of 'apple', is 6.0 cm away; allowed: 5 cm"):
        keypoint_snapped(np.array((0.4, 0.2, 0.2)), "apple", SURFACES, POSES)
    assert keypoint_snapped(np.array((0.4, 0.2, 0.2)), "apple", SURFACES, POSES, limit=0.07)[0].body == "apple"


@pytest.mark.parametrize("surfaces", [{}, {"apple": np.zeros((0, 3))}])
def test_no_surface_is_no_keypoint(surfaces):
    with pytest.raises(ScaffoldError, match="no surface is near"):
        keypoint_snapped(np.zeros(3), "apple", surfaces, POSES)


def test_planning_imports_neither_torch_nor_warp():
    code = "import sys, scaffoldlab.camera, scaffoldlab.keypoints.keypoint; print({'torch', 'warp'} & set(sys.modules))"
    assert subprocess.check_output((sys.executable, "-c", code), text=True).strip() == "set()"
