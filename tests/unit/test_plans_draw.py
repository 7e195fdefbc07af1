"""Drawn plans: exact pixels, the right places, nothing lost."""

import itertools
import warnings

import numpy as np
import pytest

from scaffoldlab.camera import Camera, RgbdImage
from scaffoldlab.errors import ScaffoldError
from scaffoldlab.keypoints.keypoint import Keypoint
from scaffoldlab.plans.draw import contact_sheet, draw_plan
from scaffoldlab.plans.plan import Plan

GREY = 120


def make_image(width=400, height=400):
    """A view from straight above: image up is +x, image left is +y, 1 m below is 1 m wide or so."""
    camera = Camera.look_at((0, 0, 2), (0, 0, 1), width=width, height=height, fov_deg=53.13, up_e=(1, 0, 0))
    return RgbdImage(np.full((height, width, 3), GREY, np.uint8), np.ones((height, width), np.float32), camera)


def make_plan(tracks, hand):
    """A plan over these start and end points, by keypoint name."""
    return Plan(
        task="draw",
        keypoints=tuple(Keypoint(name, "body", (0, 0, 0)) for name in tracks),
        keypoints_e=np.stack([np.array(ends, float) for ends in tracks.values()], 1),
        wrist_e=np.concatenate((np.array(hand, float), np.zeros((2, 3))), 1),
        initial_state={},
        provenance={},
    )


PLAN = make_plan({"cup": ((-0.2, 0.2, 1), (0.2, 0.2, 1))}, hand=((-0.2, -0.2, 1), (0.2, -0.2, 1)))


def test_drawing_has_the_size_of_the_picture_and_leaves_the_rest_alone():
    for width, height in ((400, 400), (401, 333), (97, 64)):
        image = make_image(width, height)
        drawn = draw_plan(image, PLAN)
        assert (drawn.shape, drawn.dtype) == ((height, width, 3), np.uint8)
        changed = (drawn != GREY).any(-1)
        assert 0.005 < changed.mean() < 0.25
        assert not changed[0].any()
    assert (image.rgb == GREY).all()


def test_picture_below_the_drawing_is_unchanged():
    image = make_image()
    noise = np.random.default_rng(0).integers(0, 256, image.rgb.shape, dtype=np.uint8)
    plain, noisy = draw_plan(image, PLAN), draw_plan(RgbdImage(noise, image.depth, image.camera), PLAN)
    untouched = (plain == GREY).all(-1)
    assert untouched.mean() > 0.8
    np.testing.assert_array_equal(noisy[untouched], noise[untouched])


def test_tracks_lie_where_the_camera_sees_them_in_their_colours():
    """The cup moves up the left side in blue, the hand up the right side in orange, each from ring to arrow."""
    image = make_image()
    drawn = draw_plan(image, PLAN).astype(int)
    for point, color in (((0.19, 0.2, 1), (0, 114, 178)), ((0.19, -0.2, 1), (230, 159, 0))):
        u, v = image.camera.project(np.array(point)).astype(int)
        assert np.abs(drawn[v, u] - color).max() < 16
    u, v = image.camera.project(np.array((-0.2, 0.2, 1))).astype(int)
    assert drawn[v, u].min() > 250  # the hollow start
    half, (u, v) = (
        (np.array((0, 114, 178)) + 255 * 1.0) / 2,
        image.camera.project(np.array((-0.17, 0.2, 1))).astype(int),
    )
    assert np.abs(drawn[v, u] - half).max() < 24  # pale near the start


def test_same_plan_gives_the_same_file(tmp_path):
    from PIL import Image

    first = draw_plan(make_image(), PLAN, path=tmp_path / "deep" / "first.png")
    draw_plan(make_image(), PLAN, path=tmp_path / "second.png")
    assert (tmp_path / "deep" / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "second.png")), first)


def drawn_texts(monkeypatch, image, plan):
    from scaffoldlab.plans import draw

    finished = []
    monkeypatch.setattr(draw, "_finish", lambda axes, path: finished.append(axes) or np.zeros((1, 1, 3), np.uint8))
    draw_plan(image, plan)
    return finished[0].texts


def test_names_cover_neither_each_other_nor_leave_the_picture(monkeypatch):
    rng = np.random.default_rng(1)
    for _ in range(5):
        starts = rng.uniform(-0.12, 0.12, (6, 3)) + np.array((0, 0, 1))
        tracks = {f"keypoint {i}": (start, start + np.array((0, 0.1, 0))) for i, start in enumerate(starts)}
        texts = drawn_texts(monkeypatch, make_image(800, 800), make_plan(tracks, hand=((0, 0, 1.1), (0.1, 0, 1.1))))
        assert len(texts) == 7
        boxes = [text.get_window_extent() for text in texts]
        assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
        assert all(box.x0 >= 0 and box.y0 >= 0 and box.x1 <= 800 and box.y1 <= 800 for box in boxes)


def test_what_is_out_of_view_is_named(monkeypatch):
    tracks = {"cup": ((0, 0, 1), (0.1, 0, 1)), "far": ((9, 0, 1), (9, 0, 1)), "above": ((0, 0, 3), (0, 0, 3))}
    plan = make_plan(tracks, hand=((0, 0.1, 1), (0, 0.2, 1)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        texts = drawn_texts(monkeypatch, make_image(), plan)
    assert [text.get_text() for text in texts] == ["hand", "cup", "not in view: far, above"]


def test_plan_that_is_out_of_view_as_a_whole_is_named_too(monkeypatch):
    """A camera whose pose is wrong: the picture says so instead of failing."""
    plan = make_plan({"far": ((9, 0, 1), (9, 0, 1))}, hand=((9, 1, 1), (9, 2, 1)))
    assert [text.get_text() for text in drawn_texts(monkeypatch, make_image(), plan)] == ["not in view: hand, far"]


@pytest.mark.parametrize("end", [(0, 0, 3), (0.1, 0.1, 1.9999999)], ids=["behind", "at the lens"])
@pytest.mark.parametrize("turned", [False, True])
def test_track_that_leaves_the_view_is_drawn_as_far_as_it_is_seen(end, turned):
    track = ((0.1, 0.1, 1), end)
    plan = make_plan({"cup": track[::-1] if turned else track}, hand=((0, 0.1, 1), (0, 0.2, 1)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (draw_plan(make_image(), plan) != GREY).any()


def test_names_are_text_not_formulas(monkeypatch):
    plan = make_plan({"cost $x_1$ and \\frac": ((0, 0, 1), (0, 0, 1))}, hand=((0, 0.1, 1), (0, 0.2, 1)))
    assert "cost $x_1$ and \\frac" in [text.get_text() for text in drawn_texts(monkeypatch, make_image(), plan)]
    monkeypatch.undo()
    draw_plan(make_image(), plan)


def test_contact_sheet_keeps_every_picture_pixel_by_pixel(tmp_path):
    pictures = [np.full((100, 100, 3), 40 * i, np.uint8) for i in range(1, 6)]
    sheet = contact_sheet(pictures, path=tmp_path / "sheet.png")
    assert sheet.shape == (2 * 100 + 3 * 3, 3 * 100 + 4 * 3, 3)  # 3 columns, gaps of 3 px
    assert [tuple(sheet[3 + 103 * (i // 3) + 50, 3 + 103 * (i % 3) + 50]) for i in range(5)] == [
        (40 * i,) * 3 for i in range(1, 6)
    ]
    assert (sheet[106:, 209:] == 255).all()  # the sixth cell
    assert (tmp_path / "sheet.png").stat().st_size > 0


def test_contact_sheet_centres_smaller_pictures_and_writes_captions():
    pictures = [np.zeros((100, 200, 3), np.uint8), np.zeros((50, 100, 3), np.uint8)]
    plain, sheet = contact_sheet(pictures, columns=1), contact_sheet(pictures, columns=1, captions=["first", "second"])
    assert plain.shape == (3 * 3 + 2 * 100, 2 * 3 + 200, 3)
    assert sheet.shape == (3 * 3 + 2 * 107, 2 * 3 + 200, 3)
    assert (plain[106 + 25 : 106 + 75, 53:153] == 0).all()
    assert (plain[106:130] == 255).all()
    assert sheet[103:110].min() < 200  # the first caption


@pytest.mark.parametrize(
    ("pictures", "captions", "message"),
    [
        ([], None, "allowed: at least one"),
        ([np.zeros((4, 4), np.uint8)], None, r"shapes \[\(4, 4\)\]"),
        ([np.zeros((4, 4, 3), np.uint8)], ["a", "b"], "got 2 captions; allowed: 1"),
    ],
)
def test_contact_sheet_refuses_what_it_cannot_lay_out(pictures, captions, message):
    with pytest.raises(ScaffoldError, match=message):
        contact_sheet(pictures, captions=captions)
