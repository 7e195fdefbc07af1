"""The camera of a scene file: looked at, or a real one with its intrinsics, its roll and an off-centre axis."""

import numpy as np
import pytest

from scaffoldlab.specs.models import AssetSpec, CameraSpec

REAL = CameraSpec(
    eye=(-1, 0, 1), target=(0, 0, 0), up=(0, 1, 1), width=640, height=480, intrinsics=(600, 610, 330, 235)
)


def test_real_camera_has_its_intrinsics_and_its_roll():
    camera = REAL.camera()
    assert camera.intrinsics.tolist() == [[600, 0, 330], [0, 610, 235], [0, 0, 1]]
    assert camera.project(np.zeros(3)) == pytest.approx((330, 235))
    assert np.dot(camera.pose_ec[:3, 0], (0, 1, 1)) == pytest.approx(0)  # up is up in the image


def test_square_picture_is_the_middle_of_the_real_one():
    square, camera = REAL.camera(size=240), REAL.camera()
    points = np.random.default_rng(0).uniform(-0.2, 0.2, (20, 3))
    assert square.project(points) == pytest.approx((camera.project(points) - (80, 0)) / 2)


def test_camera_without_intrinsics_is_as_before():
    camera = CameraSpec(eye=(-1, 0, 1), target=(0, 0, 0), fov_deg=90).camera()
    assert camera.intrinsics[0].tolist() == pytest.approx([400, 0, 400])


def test_asset_turns_about_z_last():
    asset = AssetSpec(name="a", kind="rigid", usd="a.usda", roll_deg=90, yaw_deg=90)
    from scaffoldlab.geometry import pose_apply

    assert pose_apply(asset.pose(), np.array((1.0, 0, 0))) == pytest.approx((0, 1, 0))
    assert pose_apply(asset.pose(), np.array((0, 1.0, 0))) == pytest.approx((0, 0, 1))
