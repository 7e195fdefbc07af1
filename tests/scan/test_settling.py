"""How a drop is judged: from made-up tracks whose rest, depth and tilt are known."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from scaffoldlab.scan.objects.settling import judge

CORNERS = np.array(np.meshgrid(*[[-0.05, 0.05]] * 3)).reshape(3, -1).T


def track(height=0.05, *, falls=10, tilt_deg=0.0, drift=0.0) -> np.ndarray:
    """A cube of 10 cm that is still after ``falls`` of 61 poses, unless it drifts by so much in each."""
    poses = np.zeros((61, 7))
    poses[:, 2] = height
    poses[:falls, 2] += np.linspace(0.02, 0.002, falls)
    poses[:, 0] = drift * np.arange(61)
    poses[:, 3:] = Rotation.from_euler("x", tilt_deg, degrees=True).as_quat()
    poses[0, 3:] = 0, 0, 0, 1
    return poses


def test_cube_that_falls_and_lies_still_has_settled():
    got = judge(track(), CORNERS)
    assert got.settled and got.seconds == pytest.approx(10 / 30) and got.penetration_m == pytest.approx(0)
    assert got.finding("ovphysx").severity == "ok"


@pytest.mark.parametrize("height", [0.047, 0.053])
def test_lying_in_the_floor_or_above_it_is_not_settled(height):
    got = judge(track(height), CORNERS)
    assert not got.settled and got.penetration_m == pytest.approx(0.05 - height)
    assert "--collider-threshold" in got.finding("ovphysx").fix


def test_drift_is_not_settled():
    got = judge(track(drift=0.0005), CORNERS)
    assert not got.settled and got.seconds is None and got.drift_m == pytest.approx(0.007)


def test_tilt_is_measured_and_told():
    got = judge(track(0.05 * np.sqrt(2), tilt_deg=45), CORNERS)
    assert got.settled and got.tilt_deg == pytest.approx(45, abs=1e-6)
    assert got.finding("ovphysx").severity == "warning" and "--up" in got.finding("ovphysx").fix
