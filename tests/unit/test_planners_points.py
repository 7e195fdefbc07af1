"""Each family of models writes a point its own way, and each way leads back to the same pixel."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaffoldlab.errors import ScaffoldError
from scaffoldlab.planners.points import CONVENTIONS, point_convention, qwen25_size
from scaffoldlab.planners.reply import RejectedReply, read_points

# A point 600 px right and 200 px down in an image of 800 x 800, as each family writes it.
WRITTEN = {
    "gemini": '[{"point": [250, 750], "label": "apple"}]',
    "qwen": '[{"point_2d": [750, 250], "label": "apple"}]',
    "qwen2.5": '```json\n[{"point_2d": [609, 203], "label": "apple"}]\n```',  # of 812 x 812
    "molmo": '<point x="75.0" y="25.0" alt="apple">apple</point>',
    "pixels": '[{"name": "apple", "point": [600, 200]}]',
}


@pytest.mark.parametrize("name", CONVENTIONS)
def test_point_of_every_family_is_the_same_pixel(name):
    fractions = read_points(WRITTEN[name], ("apple",), CONVENTIONS[name], 800, 800)
    np.testing.assert_allclose(fractions * 800, [[600, 200]])


@pytest.mark.parametrize("name", CONVENTIONS)
@given(
    fraction=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    width=st.integers(64, 1500),
    height=st.integers(64, 1500),
)
def test_writing_then_reading_a_point_returns_it(name, fraction, width, height):
    right = {"qwen2.5": qwen25_size(width, height), "molmo": (100, 100), "pixels": (width, height)}
    written = np.array(fraction) * right.get(name, (1000, 1000))
    written = written[::-1] if name == "gemini" else written
    np.testing.assert_allclose(CONVENTIONS[name].fractions(written[None], width, height)[0], fraction, atol=1e-12)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((800, 800), (812, 812)),  # 800 / 28 = 28.6
        ((640, 480), (644, 476)),
        ((28, 28), (56, 56)),  # fewer than 56 * 56 pixels: enlarged
        ((8000, 4000), (5068, 2520)),  # more than 16384 patches: / sqrt(32e6 / 12845056) = 5068.5, 2534.2
    ],
)
def test_qwen25_resizes_to_multiples_of_28_within_its_limits(size, expected):
    assert qwen25_size(*size) == expected


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("gemini-2.5-flash", "gemini"),
        ("models/gemini-robotics-er-1.5-preview", "gemini"),
        ("google/Gemini-2.5-pro", "gemini"),
        ("allenai/Molmo-7B-D-0924", "molmo"),
        ("Qwen/Qwen2.5-VL-72B-Instruct", "qwen2.5"),
        ("qwen2.5vl:7b", "qwen2.5"),
        ("Qwen/Qwen2-VL-7B-Instruct", "qwen"),
        ("qwen3-vl:8b", "qwen"),
        ("gpt-5-mini", "pixels"),
    ],
)
def test_convention_is_guessed_from_the_model(model, name):
    assert point_convention(None, model).name == name
    assert point_convention("molmo", model).name == "molmo"


def test_unknown_convention_names_the_nearest():
    with pytest.raises(
        ScaffoldError, match="unknown point convention 'gemeni'. Did you mean 'gemini'.*Allowed: gemini"
    ):
        point_convention("gemeni", "x")


def test_points_come_in_the_order_of_the_names():
    written = {"board": [0, 0], "lamp": [5, 5], "apple": [1000, 1000]}
    text = json.dumps([{"name": name, "point": point} for name, point in written.items()])
    assert read_points(text, ("apple", "board"), CONVENTIONS["gemini"], 80, 80).tolist() == [[1, 1], [0, 0]]


def test_molmo_names_points_by_alt_or_text_and_unescapes_them():
    text = '<point x="10" y="20">salt &amp; pepper</point> and <points x1="30" y1="40" alt="board">board</points>'
    fractions = read_points(text, ("board", "salt & pepper"), CONVENTIONS["molmo"], 80, 80)
    np.testing.assert_allclose(fractions, [[0.3, 0.4], [0.1, 0.2]])


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        (
            "gemini",
            '[{"name": "aple", "point": [1, 2]}]',
            r'no "apple"; got "aple". Did you mean "apple" where you wrote',
        ),
        ("gemini", '[{"name": "apple", "point": [1, 2, 3]}]', r'"point": list should have at most 2 items'),
        ("gemini", '[{"name": "apple", "point": ["1", 2]}]', r'"point"\[0\]: input should be a valid number; got "1"'),
        ("gemini", '[{"name": "apple", "point": [NaN, 2]}]', r'"point"\[0\]: input should be a finite number; got nan'),
        (
            "gemini",
            '[{"name": "apple", "point": [-1, 2]}]',
            r"\[-1.0, 2.0\] of \"apple\" is outside the image; allowed: x in 0..1000",
        ),
        (
            "gemini",
            '[{"name": "apple", "point": [1, 2]}, {"name": "apple", "point": [3, 4]}]',
            '"apple" is pointed at twice',
        ),
        ("pixels", '[{"name": "apple", "point": [81, 2]}]', r"allowed: x in 0..80, y in 0..60"),
        ("molmo", '<point x="101" y="2" alt="apple">', r"outside the image; allowed: x in 0..100"),
        ("molmo", '<point x="1e" y="2" alt="apple">', r"needs x and y as numbers"),
        ("molmo", '<point x="1" alt="apple">', r"needs x and y as numbers"),
        ("molmo", '<point x="nan" y="2" alt="apple">', r"finite number"),
        ("molmo", "There is no apple.", r"no <point> element; it begins with \"There is no apple"),
        ("molmo", "", r"empty"),
        ("gemini", " \n", r"empty"),
    ],
)
def test_unusable_point_is_rejected_with_the_reason(name, text, reason):
    with pytest.raises(RejectedReply, match=reason):
        read_points(text, ("apple",), CONVENTIONS[name], 80, 60)
