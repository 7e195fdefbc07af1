"""A pixel becomes the point that it shows, and a point its pixel; the rotations underneath agree with each other."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaffoldlab.camera import Camera, RgbdImage
from scaffoldlab.errors import ScaffoldError
from scaffoldlab.geometry import matrix_from_rpy, pose_apply, pose_apply_inverse, quat_apply, quat_xyzw_from_rpy

angles = st.tuples(*[st.floats(-math.pi, math.pi)] * 3).map(np.array)
points = st.tuples(*[st.floats(-2.0, 2.0)] * 3).map(np.array)


def overhead() -> Camera:
    """2 m above the origin, looking down, x of the env up in the image; 90 deg, so 1 m is 100 px on the ground."""
    return Camera.look_at((0, 0, 2), (0, 0, 0), width=400, height=300, fov_deg=90, up_e=(1, 0, 0))


def picture(camera: Camera, depth: float) -> RgbdImage:
    size = (camera.height, camera.width)
    return RgbdImage(np.zeros((*size, 3), np.uint8), np.full(size, depth, np.float32), camera)


def test_point_below_the_camera_is_the_middle_of_the_image():
    np.testing.assert_allclose(overhead().project(np.zeros(3)), (200, 150), atol=1e-9)


def test_forward_is_up_and_left_is_left_in_a_view_from_above():
    pixels = overhead().project(np.array(((0.5, 0, 0), (0, 0.5, 0))))
    np.testing.assert_allclose(pixels, ((200, 100), (150, 150)), atol=1e-9)


def test_higher_is_up_in_a_view_from_the_side():
    camera = Camera.look_at((-1, 0, 0.5), (0, 0, 0.5), width=100, height=100, fov_deg=60)
    (u, v), (left_u, _) = camera.project(np.array(((0, 0, 0.7), (0, 0.2, 0.5))))
    assert u == pytest.approx(50) and v < 50 and left_u < 50


def test_camera_pose_is_a_rotation():
    rotation = Camera.look_at((1.0, -0.4, 0.9), (0, 0.1, 0), width=8, height=8, fov_deg=50).pose_ec[:3, :3]
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1)


def test_points_behind_the_camera_have_no_pixel():
    assert np.isnan(overhead().project(np.array(((0, 0, 2.5), (1, 1, 2.0))))).all()


def test_lift_puts_a_pixel_at_its_depth():
    image = picture(overhead(), 2.0)
    image.depth[100, 200] = 1.0
    lifted = image.lift(np.array(((200.5, 100.5), (300, 150))))
    np.testing.assert_allclose(lifted, ((0.2475, -0.0025, 1.0), (0, -1, 0)), atol=1e-6)


def test_lift_takes_the_last_pixel_at_the_border():
    np.testing.assert_allclose(picture(overhead(), 2.0).lift(np.array(((400, 300),))), ((-1.5, -2, 0),), atol=1e-6)


@settings(deadline=None)  # a busy machine is not a bug
@given(rpy=angles, eye=points, point=points, depth=st.floats(0.05, 10), u=st.floats(0, 64), v=st.floats(0, 48))
def test_lift_and_project_undo_each_other(rpy, eye, point, depth, u, v):
    pose_ec = np.eye(4)
    pose_ec[:3, :3], pose_ec[:3, 3] = matrix_from_rpy(rpy), eye
    camera = Camera(np.array(((60.0, 0, 30), (0, 55, 25), (0, 0, 1))), pose_ec, width=64, height=48)
    image = RgbdImage(np.zeros((48, 64, 3), np.uint8), np.full((48, 64), depth), camera)
    lifted = image.lift(np.array(((u, v),)))
    np.testing.assert_allclose(camera.project(lifted), ((u, v),), atol=1e-6)

    point_c = pose_ec[:3, :3].T @ (point - eye)
    pixel = camera.project(point)
    if point_c[2] > 1e-3 and (pixel >= 0).all() and (pixel <= (64, 48)).all():
        image.depth[:] = point_c[2]
        np.testing.assert_allclose(image.lift(pixel[None])[0], point, atol=1e-9)


@pytest.mark.parametrize("pixel", [(-0.1, 10), (400.5, 10), (10, 301), (math.nan, 10)])
def test_lift_refuses_a_pixel_outside_the_image(pixel):
    with pytest.raises(ScaffoldError, match=r"of point 1 is outside the image; allowed: u in 0..400, v in 0..300"):
        picture(overhead(), 2.0).lift(np.array(((5, 5), pixel)))


@pytest.mark.parametrize("depth", [0.0, math.nan, math.inf])
def test_lift_refuses_a_pixel_where_nothing_was_hit(depth):
    image = picture(overhead(), 2.0)
    image.depth[20, 10] = depth
    with pytest.raises(ScaffoldError, match=r"\(10, 20\) of point 0 has depth .* nothing was hit"):
        image.lift(np.array(((10, 20), (30, 30))))


def test_image_of_another_size_than_its_camera_is_refused():
    with pytest.raises(ScaffoldError, match=r"\(300, 400\)"):
        RgbdImage(np.zeros((400, 300, 3), np.uint8), np.zeros((400, 300)), overhead())


@pytest.mark.parametrize(
    ("eye", "fov_deg", "message"),
    [((0, 0, 1), 60, "along up_e"), ((0, 0, 0), 60, "no length"), ((1, 0, 1), 180, "180 deg")],
)
def test_look_at_refuses_a_view_without_an_up(eye, fov_deg, message):
    with pytest.raises(ScaffoldError, match=message):
        Camera.look_at(eye, (0, 0, 0), width=4, height=4, fov_deg=fov_deg)


def test_yaw_of_a_quarter_turn_takes_forward_to_left():
    quat_xyzw = quat_xyzw_from_rpy(np.array((0, 0, math.pi / 2)))
    np.testing.assert_allclose(quat_xyzw, (0, 0, math.sqrt(0.5), math.sqrt(0.5)), atol=1e-12)
    np.testing.assert_allclose(quat_apply(quat_xyzw, np.array((1.0, 0, 0))), (0, 1, 0), atol=1e-12)


@settings(deadline=None)
@given(rpy=angles, point=points)
def test_quaternion_and_matrix_of_the_same_angles_agree(rpy, point):
    np.testing.assert_allclose(quat_apply(quat_xyzw_from_rpy(rpy), point), matrix_from_rpy(rpy) @ point, atol=1e-9)


@settings(deadline=None)
@given(rpy=angles, origin=points, point=points)
def test_pose_apply_inverse_undoes_pose_apply(rpy, origin, point):
    pose = np.concatenate((origin, quat_xyzw_from_rpy(rpy)))
    np.testing.assert_allclose(pose_apply_inverse(pose, pose_apply(pose, point)), point, atol=1e-9)
