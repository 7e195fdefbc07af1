"""Pictures without a simulator: where things are in them, what hides what, and their colours."""

import numpy as np
import pytest
from PIL import Image

from desks import cuboid
from scaffoldlab.camera import Camera
from scaffoldlab.scan.render import Renderer, scaled
from scaffoldlab.usd.reader import VisualPart

CAMERA = Camera.look_at((0, 0, 2), (0, 0, 0), width=80, height=60, fov_deg=60, up_e=(0, 1, 0))


@pytest.fixture
def renderer():
    floor, cube = cuboid((2, 2, 0.1), (0, 0, -0.05), (1, 1, 1)), cuboid((0.4,) * 3, (0, 0, 0), (1, 0, 0))
    lifted = np.eye(4)
    lifted[:3, 3] = 0.3, 0.2, 0.5
    return Renderer({"floor": (floor,), "cube": (cube,)}, {"floor": np.eye(4), "cube": lifted})


def test_depth_is_along_the_axis_and_0_beside_everything(renderer):
    depth = renderer.render(CAMERA).depth
    assert (depth[45, 10] == pytest.approx(2.0, abs=1e-5) and depth[0, 0] == 0) or depth[0, 0] == pytest.approx(2.0)
    row, column = CAMERA.project(np.array((0.3, 0.2, 0.7)))[::-1].astype(int)
    assert depth[row, column] == pytest.approx(1.3, abs=1e-5)


def test_body_is_seen_where_the_camera_projects_it(renderer):
    body = renderer.render(CAMERA).body
    middle = np.argwhere(body == 1)[:, ::-1].mean(0) + 0.5
    assert middle == pytest.approx(CAMERA.project(np.array((0.3, 0.2, 0.7))), abs=1)
    assert set(np.unique(body)) <= {-1, 0, 1}


def test_hidden_body_is_found_alone():
    wall = cuboid((2, 2, 0.1), (0, 0, 1), (1, 1, 1))
    bodies = {"wall": (wall,), "cube": (cuboid((0.4,) * 3, (0, 0, 0), (1, 0, 0)),)}
    renderer = Renderer(bodies, dict.fromkeys(bodies, np.eye(4)))
    assert not (renderer.render(CAMERA).body == 1).any()
    assert renderer.alone("cube", CAMERA)[30, 40] and not renderer.alone("cube", CAMERA)[0, 0]


def test_smooth_picture_has_the_size_and_the_depth_of_a_plain_one(renderer):
    plain, smooth = renderer.render(CAMERA), renderer.render(CAMERA, smooth=2)
    assert smooth.rgb.shape == plain.rgb.shape == (60, 80, 3)
    assert np.median(np.abs(smooth.depth - plain.depth)) < 1e-3
    assert scaled(CAMERA, 2).project(np.zeros(3)) == pytest.approx(2 * CAMERA.project(np.zeros(3)))


def test_texture_is_right_way_up_and_does_not_wrap_at_its_edge(tmp_path):
    Image.fromarray(np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]], np.uint8)).save(
        tmp_path / "t.png"
    )
    corners = np.array([(-1, -1, 0), (1, -1, 0), (1, 1, 0), (-1, 1, 0)], float)
    faces = np.array([(0, 1, 2), (0, 2, 3)])

    def seen(uv):
        part = VisualPart(corners, faces, np.array(uv, float), np.ones(3), tmp_path / "t.png")
        return Renderer({"square": (part,)}, {"square": np.eye(4)}).render(CAMERA).rgb

    picture = seen([(0, 0), (1, 0), (1, 1), (0, 1)])
    assert picture[20, 30].argmax() == 0 and picture[20, 50].argmax() == 1 and picture[40, 30].argmax() == 2
    edge = seen([(0, 1), (0.4, 1), (0.4, 1), (0, 1)])[20:40, 30:50]
    assert (edge.argmax(-1) == 0).all() and edge[..., 1:].max() == 0
