"""Reads a model's reply: untrusted text in, checked arrays out, or the reasons why not."""

import difflib
import html
import json
import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Annotated, Any

import numpy as np
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model

from scaffoldlab.errors import ScaffoldError
from scaffoldlab.planners.points import PointConvention

RESERVED_NAMES = ("hand", "waypoint_num")
"""Keys of the trajectory format that no keypoint may be called."""

_MOST_CHARACTERS = 1_000_000
_MOST_REASONS = 8


class RejectedReply(ScaffoldError):
    """A reply that is no answer.

    Attributes:
        reasons: What is wrong with it, one sentence each; they are quoted back to the model.
    """

    def __init__(self, reasons: Sequence[str]) -> None:
        extra = [f"... and {len(reasons) - _MOST_REASONS} more."] if len(reasons) > _MOST_REASONS else []
        self.reasons = [*reasons[:_MOST_REASONS], *extra]
        super().__init__(" ".join(self.reasons))


class _Strict(BaseModel):
    """Numbers must be finite JSON numbers; keys that were not asked for are ignored."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False, frozen=True)


class _Position(_Strict):
    x: float
    y: float
    z: float


class _Pose(_Position):
    roll: float
    pitch: float
    yaw: float


class _Point(_Strict):
    name: str = Field(validation_alias=AliasChoices("name", "label"))
    point: Annotated[list[float], Field(min_length=2, max_length=2)] = Field(
        validation_alias=AliasChoices("point", "point_2d")
    )


class _PointOfImage(_Point):
    image: int


def read_trajectory(
    text: str, names: tuple[str, ...], count: int, *, orientation: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Reads the answer to the trajectory prompt: the last JSON in the text that has its form.

    Args:
        text: The reply, with or without prose, fences and the output of executed code around the JSON.
        names: The K keypoint names.
        count: n, waypoints that were asked for.
        orientation: The hand's roll, pitch and yaw were asked for as well.

    Returns:
        Waypoints as the model wrote them, relative to its first keypoint [m]: keypoints of shape (n, K, 3), hand of
        shape (n, 3), or with its roll, pitch, yaw [deg] of shape (n, 6).

    Raises:
        RejectedReply: Nothing in it has the form.
    """

    def check(value: Any) -> tuple[np.ndarray, np.ndarray]:
        items = _objects(value)
        if len(items) != count:
            raise RejectedReply([f"Waypoints: got {len(items)}; exactly {count} are needed."])
        waypoints = _validate(_trajectory_schema(names, orientation), items, "waypoint")
        numbers = [w.waypoint_num for w in waypoints]
        if numbers != list(range(numbers[0], numbers[0] + count)):
            raise RejectedReply([f"waypoint_num must count 0, 1, ... {count - 1}; got {_short(numbers)}."])
        # Fields are waypoint_num, the keypoints in order, then the hand.
        positions = np.array([[(p.x, p.y, p.z) for _, p in list(w)[1:]] for w in waypoints])
        hand = positions[:, -1]
        if orientation:
            hand = np.column_stack((hand, [(w.hand.roll, w.hand.pitch, w.hand.yaw) for w in waypoints]))
        return positions[:, :-1], hand

    return _last_valid(text, check)


def read_points(text: str, names: tuple[str, ...], convention: PointConvention, width: int, height: int) -> np.ndarray:
    """Reads the answer to the pointing prompt: the last list in the text that has its form.

    Args:
        text: The reply.
        names: The K keypoint names.
        convention: How the model writes a point.
        width: Width of the image that was sent [px].
        height: Height of that image [px].

    Returns:
        Points as fractions of the image, right and down from its top left corner, in [0, 1], shape (K, 2).

    Raises:
        RejectedReply: A name is missing or found twice, or a point is outside the image.
    """

    def check(value: Any) -> np.ndarray:
        points = _validate(TypeAdapter(list[_Point]), _objects(value), "point")
        return _fractions(points, names, convention, width, height)

    return check(_xml_points(text)) if convention.xml else _last_valid(text, check)


def read_points_of(
    images: int, text: str, names: tuple[str, ...], convention: PointConvention, width: int, height: int
) -> list[np.ndarray | RejectedReply]:
    """Reads the answer to the pointing prompt about several images of one size, as :func:`read_points` for each.

    Returns:
        For each image its points, shape (K, 2), or why it has none.

    Raises:
        RejectedReply: Not one image has points; with the reasons of the first.
    """

    def one(points: list[_PointOfImage]) -> np.ndarray | RejectedReply:
        try:
            return _fractions(points, names, convention, width, height)
        except RejectedReply as error:
            return error

    def check(value: Any) -> list[np.ndarray | RejectedReply]:
        points = _validate(TypeAdapter(list[_PointOfImage]), _objects(value), "point")
        answers = [one([p for p in points if p.image == number]) for number in range(1, images + 1)]
        if isinstance(answers[0], RejectedReply) and all(isinstance(a, RejectedReply) for a in answers):
            raise RejectedReply([f"Image 1: {reason}" for reason in answers[0].reasons])
        return answers

    return _last_valid(text, check)


def read_names(text: str) -> tuple[str, ...]:
    """Reads the answer to the keypoint elicitation prompt: the last JSON list of names in the text.

    Raises:
        RejectedReply: There is no list of distinct names.
    """

    def check(value: Any) -> tuple[str, ...]:
        if not isinstance(value, list) or not value or not all(isinstance(v, str) and v.strip() for v in value):
            raise RejectedReply([f"A JSON list of keypoint names is needed; got {_short(value)}."])
        names = tuple(" ".join(v.split()) for v in value)
        if len(set(names)) != len(names) or set(names) & set(RESERVED_NAMES):
            raise RejectedReply([f"Names must differ, and none may be {' or '.join(RESERVED_NAMES)}; got {names}."])
        return names

    return _last_valid(text, check)


def json_values(text: str) -> Iterator[Any]:
    """Every JSON array and object in a text that is inside no other one, in order.

    An object whose only list is the answer, as ``{"trajectory": [...]}``, is replaced by that list.
    """
    decoder, start = json.JSONDecoder(), 0
    while match := re.compile(r"[\[{]").search(text, start):
        try:
            value, start = decoder.raw_decode(text, match.start())
        except RecursionError:
            raise RejectedReply(["The JSON is nested too deeply."]) from None
        except ValueError:  # not JSON from here; also an integer of more digits than Python reads
            start = match.end()
        else:
            yield _unwrapped(value)


def _unwrapped(value: Any) -> Any:
    while isinstance(value, dict):
        inner = [v for v in value.values() if isinstance(v, list | dict)]
        lists = [v for v in inner if isinstance(v, list)]
        if len(lists) == 1 and all(isinstance(v, dict | str) for v in lists[0]):
            return lists[0]
        if len(value) != 1 or not inner:
            return value
        value = inner[0]
    return value


def _last_valid[T](text: str, check: Callable[[Any], T]) -> T:
    """The last JSON value that passes the check: what executed code printed comes after the drafts."""
    if not text.strip():
        raise RejectedReply(["The reply is empty."])
    if len(text) > _MOST_CHARACTERS:
        raise RejectedReply([f"The reply has {len(text)} characters; allowed: {_MOST_CHARACTERS}."])
    valid: list[T] = []
    rejected: list[tuple[int, RejectedReply]] = []
    for value in json_values(text):
        try:
            valid = [check(value)]
        except RejectedReply as error:
            rejected.append((sum(isinstance(v, dict) for v in value), error))
    if valid:
        return valid[0]
    if rejected:  # say what is wrong with the one that looks most like an answer, the later of two equals
        raise max(reversed(rejected), key=lambda r: r[0])[1]
    kind = "HTML" if re.match(r"\s*<(!doctype|html)", text, re.IGNORECASE) else "no complete JSON list"
    raise RejectedReply([f"The reply is {kind}; it begins with {_short(text)}. Only JSON was asked for."])


def _fractions(
    points: Sequence[_Point], names: tuple[str, ...], convention: PointConvention, width: int, height: int
) -> np.ndarray:
    """One point for each name, as fractions of the image, shape (K, 2)."""
    found = [p.name for p in points]
    reasons = [_missing(name, found, "The answer") for name in names if name not in found]
    reasons += [f"{json.dumps(name)} is pointed at twice." for name in names if found.count(name) > 1]
    if reasons:
        raise RejectedReply(reasons)
    raw = np.array([points[found.index(name)].point for name in names])
    fractions = convention.fractions(raw, width, height)
    x, y = (f"{border:g}" for border in convention.border(width, height))
    outside = ((fractions < 0) | (fractions > 1)).any(-1)
    if outside.any():
        raise RejectedReply(
            [
                f"The point {point.tolist()} of {json.dumps(name)} is outside the image; allowed: x in 0..{x}, "
                f"y in 0..{y}, written as {convention.meaning(width, height)}."
                for name, point, out in zip(names, raw, outside, strict=True)
                if out
            ]
        )
    return fractions


def _objects(value: Any) -> list[Any]:
    items = value if isinstance(value, list) else [value]
    if not items or not all(isinstance(item, dict) for item in items):
        raise RejectedReply([f"A JSON list of objects is needed; got {_short(value)}."])
    return items


@lru_cache(maxsize=64)
def _trajectory_schema(names: tuple[str, ...], orientation: bool) -> TypeAdapter[list[Any]]:
    fields: Any = {f"keypoint_{i}": (_Position, Field(alias=name)) for i, name in enumerate(names)}
    fields = {"waypoint_num": (int, ...)} | fields | {"hand": (_Pose if orientation else _Position, ...)}
    waypoint = create_model("Waypoint", __base__=_Strict, **fields)
    return TypeAdapter(list[waypoint])  # pyright: ignore[reportInvalidTypeForm]


def _validate(schema: TypeAdapter[list[Any]], items: list[Any], noun: str) -> list[Any]:
    try:
        return schema.validate_python(items)
    except ValidationError as error:
        where: dict[str, list[int]] = {}  # one sentence for the same fault in many items
        for detail in error.errors(include_url=False, include_context=False):
            number, *path = detail["loc"]
            where.setdefault(_fault(items[int(number)], [str(p) for p in path], detail), []).append(int(number))
    more = {fault: f" (and {len(n) - 1} more)" if len(n) > 1 else "" for fault, n in where.items()}
    raise RejectedReply([f"{noun} {n[0]}{more[fault]}: {fault}" for fault, n in where.items()])


def _fault(item: dict[str, Any], path: list[str], detail: Any) -> str:
    if detail["type"] == "missing":
        place = item if len(path) == 1 else item.get(path[0], {})
        return _missing(path[-1], list(place), "it" if len(path) == 1 else json.dumps(path[0]))
    field = json.dumps(path[0]) + "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in path[1:])
    return f"{field}: {detail['msg'][0].lower()}{detail['msg'][1:]}; got {_short(detail['input'])}."


def _missing(name: str, found: list[str], where: str) -> str:
    near = difflib.get_close_matches(name.lower(), [f.lower() for f in found], n=1)
    got = ", ".join(map(_short, found[:_MOST_REASONS])) or "nothing"
    wrote = next((f for f in found if near and f.lower() == near[0]), None)
    hint = f" Did you mean {json.dumps(name)} where you wrote {_short(wrote)}?" if wrote else ""
    return f"{where} has no {json.dumps(name)}; got {got}.{hint}"


def _short(value: Any) -> str:
    """A value for a message: escaped, on one line and short, as it comes from outside."""
    text = json.dumps(value) if isinstance(value, str) else repr(value)
    return text if len(text) <= 80 else f"{text[:60]} ... {text[-15:]}"


def _xml_points(text: str) -> list[dict[str, Any]]:
    """Points of Molmo's ``<point x="" y="" alt="">`` and ``<points x1="" y1="" x2="" ... alt="">``."""
    if not text.strip():
        raise RejectedReply(["The reply is empty."])
    points = []
    for attributes, inner in re.findall(r"<points?\b([^<>]*)>([^<>]*)", text[:_MOST_CHARACTERS]):
        values = {k: html.unescape(v) for k, v in re.findall(r'(\w+)\s*=\s*"([^"]*)"', attributes)}
        for key in [k for k in values if re.fullmatch(r"x\d*", k)]:
            try:
                point = [float(values[key]), float(values["y" + key[1:]])]
            except (KeyError, ValueError):
                raise RejectedReply([f"A point needs x and y as numbers; got {_short(attributes.strip())}."]) from None
            points.append({"name": values.get("alt", html.unescape(inner).strip()), "point": point})
    if not points:
        raise RejectedReply([f"The reply has no <point> element; it begins with {_short(text)}."])
    return points
