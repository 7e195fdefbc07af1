"""A model's text becomes arrays only in exactly the form that was asked for; anything else gets a clear reason."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaffoldlab.planners.reply import RejectedReply, json_values, read_names, read_trajectory

NAMES = ("apple", "cutting board")
numbers = st.floats(-3, 3).map(lambda x: round(x, 2))


def answer(count=3, **changes):
    """Waypoints whose numbers are all different: x of waypoint i, point k is i + k / 10."""
    return [
        {"waypoint_num": i}
        | {
            name: {"x": i + k / 10, "y": i + k / 10 + 0.01, "z": i + k / 10 + 0.02}
            for k, name in enumerate((*NAMES, "hand"))
        }
        | changes
        for i in range(count)
    ]


def test_positions_arrive_in_the_order_of_the_names():
    keypoints, hand = read_trajectory(json.dumps(answer()), NAMES, 3)
    np.testing.assert_allclose(keypoints[2], [[2.0, 2.01, 2.02], [2.1, 2.11, 2.12]])
    np.testing.assert_allclose(hand[1], [1.2, 1.21, 1.22])
    swapped, _ = read_trajectory(json.dumps(answer()), NAMES[::-1], 3)
    np.testing.assert_array_equal(swapped, keypoints[:, ::-1])


@pytest.mark.parametrize(
    "wrap",
    [
        "{}",
        "```json\n{}\n```",
        "```\n{}\n```\nI hope this helps [1]!",
        "Here [as asked] is {{the}} trajectory: {}",
        '{{"trajectory": {}}}',
        '{{"result": {{"note": "done", "waypoints": {}}}}}',
        "<think>[[0.0, 0.0], {{}}]</think>\n{}",
        "```python\nplan = []\nx = {{}}\n```\n<execute_result>\n{}\n</execute_result>",
    ],
)
def test_json_is_found_inside_anything(wrap):
    keypoints, _ = read_trajectory(wrap.format(json.dumps(answer(), indent=1)), NAMES, 3)
    assert keypoints.shape == (3, 2, 3)


def test_the_last_valid_result_of_code_is_the_answer():
    draft, final = answer(), answer(apple={"x": 7, "y": 7, "z": 7})
    text = f"```output\n{json.dumps(draft)}\n```\nBetter:\n```output\n{json.dumps(final)}\n```\n{json.dumps(answer(2))}"
    keypoints, _ = read_trajectory(text, NAMES, 3)
    assert (keypoints[:, 0] == 7).all()


prose = st.text(st.characters(exclude_characters="[{", exclude_categories=("Cs",)), max_size=60)


@settings(max_examples=50, deadline=None)
@given(before=prose, after=prose, values=st.lists(st.tuples(numbers, numbers, numbers), min_size=6, max_size=6))
def test_prose_around_the_json_does_not_change_it(before, after, values):
    points = [dict(zip("xyz", v, strict=True)) for v in values]
    items = [{"waypoint_num": i, "apple": points[i], "hand": points[3 + i]} for i in range(3)]
    keypoints, hand = read_trajectory(before + json.dumps(items) + after, ("apple",), 3)
    np.testing.assert_array_equal(np.concatenate((keypoints[:, 0], hand)), values)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=200) | st.text('[]{}",:0 1.eNa', max_size=200))
def test_any_text_is_read_or_rejected(text):
    with pytest.raises(RejectedReply) as error:
        read_trajectory(text, NAMES, 3)
    assert error.value.reasons and all(len(reason) < 600 for reason in error.value.reasons)


@settings(max_examples=50, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | numbers | st.text(max_size=5),
        lambda c: st.lists(c, max_size=3) | st.dictionaries(st.text(max_size=5), c, max_size=3),
    )
)
def test_json_of_any_shape_is_no_trajectory(value):
    with pytest.raises(RejectedReply):
        read_trajectory(json.dumps(value), NAMES, 3)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "The reply is empty."),
        ("I cannot do that.", 'no complete JSON list; it begins with "I cannot do that."'),
        ("<!DOCTYPE html><html></html>", "The reply is HTML"),
        (json.dumps(answer())[:-4], "Waypoints: got 1; exactly 3 are needed."),
        (json.dumps(answer(2)), "Waypoints: got 2; exactly 3 are needed."),
        (json.dumps(answer(4)), "Waypoints: got 4; exactly 3 are needed."),
        ("[1, 2, 3]", r"A JSON list of objects is needed; got \[1, 2, 3\]."),
        (
            json.dumps(answer()).replace("2.11", "NaN"),
            r'waypoint 2: "cutting board".y: input should be a finite number; got nan',
        ),
        (json.dumps(answer()).replace("2.11", "1e999"), r'"cutting board".y: input should be a finite number; got inf'),
        (
            json.dumps(answer()).replace("2.11", '"2.11"'),
            r'waypoint 2: "cutting board".y: input should be a valid number; got "2.11"',
        ),
        (json.dumps(answer()).replace("2.11", "true"), r'"cutting board".y: input should be a valid number; got True'),
        (json.dumps(answer()).replace("2.11", "9" * 5000), r"Waypoints: got 1"),
        (json.dumps(answer(hand=[0, 0, 0])), r'waypoint 0 \(and 2 more\): "hand": input should be .* got \[0, 0, 0\]'),
        (json.dumps(answer(hand={"x": 0, "y": 0})), r'waypoint 0 \(and 2 more\): "hand" has no "z"; got "x", "y"'),
        (
            json.dumps(answer()).replace("cutting board", "Cutting_Board"),
            r'waypoint 0 \(and 2 more\): it has no "cutting board"; got .*Did you mean .* you wrote "Cutting_Board"\?',
        ),
        (json.dumps(answer(waypoint_num=5)), r"waypoint_num must count 0, 1, ... 2; got \[5, 5, 5\]"),
        (json.dumps(answer(waypoint_num="0")), r'"waypoint_num": input should be a valid integer; got "0"'),
        ("[" * 200_000, "nested too deeply"),
        ("x" * 1_000_001, "1000001 characters; allowed: 1000000"),
    ],
)
def test_unusable_trajectory_is_rejected_with_the_reason(text, reason):
    with pytest.raises(RejectedReply, match=reason):
        read_trajectory(text, NAMES, 3)


def test_reason_is_about_the_value_that_looks_most_like_an_answer():
    with pytest.raises(RejectedReply, match="got 2; exactly 3"):
        read_trajectory(f"Start [0.0, 0.0]. {json.dumps(answer(2))} Lift by [0, 0, 1]. {{}}", NAMES, 3)


def test_many_reasons_are_cut():
    items = [{"waypoint_num": i, "hand": {"x": f"{i}", "y": 0, "z": 0}} for i in range(20)]
    with pytest.raises(RejectedReply) as error:
        read_trajectory(json.dumps(items), (), 20)
    assert len(error.value.reasons) == 9 and error.value.reasons[-1] == "... and 12 more."


def test_text_of_a_reply_is_escaped_in_reasons():
    with pytest.raises(RejectedReply) as error:
        read_trajectory("\x1b[31mred\x1b[0m\nline", NAMES, 3)
    assert "\x1b" not in str(error.value) and "\n" not in str(error.value)


def test_json_values_skips_what_only_begins_like_json():
    assert list(json_values('[a] {"k": 1} [1, [2]] {"x": [{"y": 1}]} {')) == [{"k": 1}, [1, [2]], [{"y": 1}]]


def test_names_are_read_as_a_list_of_distinct_texts():
    assert read_names('Sure:\n```json\n["left  handle", "top surface"]\n```') == ("left handle", "top surface")
    for text, reason in (
        ('["a", "a"]', "must differ"),
        ('["hand"]', "none may be hand or waypoint_num"),
        ('["a", 3]', "list of keypoint names is needed"),
        ("[]", "list of keypoint names is needed"),
        ("none", "no complete JSON list"),
    ):
        with pytest.raises(RejectedReply, match=reason):
            read_names(text)
