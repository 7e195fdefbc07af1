"""A loopback model for tests and demos: a real HTTP server that answers the planner's prompts from what they say.

By hand: ``python tests/vlm_server.py --port 8000 --colour apple=200,30,30``, then point a planner at the printed URL.
It shares no code with the package: names, counts and positions come out of the prompt, pixels out of the image.
"""

import argparse
import base64
import contextlib
import html
import io
import json
import re
import socket
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import numpy as np
from PIL import Image

Locate = Callable[[str, np.ndarray], tuple[float, float]]

PAGE = "<!DOCTYPE html><html><head><title>Sign in</title></head><body>Please sign in.</body></html>"


@dataclass(frozen=True)
class Behaviour:
    """What to do with one request instead of answering it well.

    Attributes:
        status: HTTP status; anything but 200 sends an error object.
        retry_after: Value of the Retry-After header.
        sleep: Wait before answering [s].
        drop: Close the connection without an answer.
        body: Body of the response instead of a chat completion.
        rewrite: Maps the good answer to the text that is sent.
        extra: Further keys of the completion, e.g. ``{"usage": None}``.
    """

    status: int = 200
    retry_after: str | None = None
    sleep: float = 0.0
    drop: bool = False
    body: str | None = None
    rewrite: Callable[[str], str] = lambda text: text
    extra: Mapping[str, Any] = field(default_factory=dict)


def _edit(change: Callable[[list[dict[str, Any]]], Any]) -> Behaviour:
    """Rewrites the answer as JSON; ``change`` returns the new value, or None if it edited in place."""

    def rewrite(text: str) -> str:
        items = json.loads(text)
        changed = change(items)
        return json.dumps(items if changed is None else changed)

    return Behaviour(rewrite=rewrite)


def _rename(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The names as a careless model writes them: without blanks, in capitals."""

    def wrong(name: str) -> str:
        return name if name in ("waypoint_num", "hand") else name.replace(" ", "_").capitalize()

    if "waypoint_num" in items[0]:
        return [{wrong(name): value for name, value in item.items()} for item in items]
    return [item | {"name": wrong(item["name"])} for item in items]


def _set_x(value: Any) -> Callable[[list[dict[str, Any]]], None]:
    def change(items: list[dict[str, Any]]) -> None:
        if "waypoint_num" in items[0]:
            items[3]["hand"]["x"] = value
        else:
            items[0]["point"][0] = value

    return change


BEHAVIOURS = {
    "ok": Behaviour(),
    "empty": Behaviour(rewrite=lambda text: ""),
    "html": Behaviour(rewrite=lambda text: PAGE),
    "page": Behaviour(body=PAGE),
    "no_body": Behaviour(body=""),
    "drop": Behaviour(drop=True),
    "prose": Behaviour(rewrite=lambda text: f"Sure! Starting at [0.0, 0.0] I get\n{text}\nI hope {{that}} helps [1]."),
    "fenced": Behaviour(rewrite=lambda text: f"```json\n{text}\n```"),
    "code": Behaviour(
        rewrite=lambda text: (
            '```python\nimport json\ndraft = [{"waypoint_num": 0}]\nprint(json.dumps(plan))\n```\n'
            f"```tool_outputs\n{text}\n```\nDone."
        )
    ),
    "cut": Behaviour(rewrite=lambda text: text[: len(text) // 2], extra={"finish_reason": "length"}),
    "wrong_names": _edit(_rename),
    "short": _edit(lambda items: items[:-1]),
    "nan": _edit(_set_x(float("nan"))),
    "strings": _edit(_set_x("0.25")),
    "outside": _edit(_set_x(4321)),
    "crossed": _edit(lambda items: [item | {"hand": {"x": 9.0, "y": 9.0, "z": 9.0}} for item in items]),
    "no_usage": Behaviour(extra={"usage": None}),
    "401": Behaviour(status=401),
    "404": Behaviour(status=404),
    "429": Behaviour(status=429, retry_after="0"),
    "500": Behaviour(status=500),
    "503": Behaviour(status=503, body=PAGE),
}
"""Named misbehaviours."""


@dataclass(frozen=True)
class Seen:
    """One request that arrived."""

    kind: str
    body: dict[str, Any]
    headers: dict[str, str]


class VlmServer:
    """The server, as a context manager.

    Args:
        colours: RGB of the things that it can point at, by keypoint name; anything else is in the middle of the image.
        locate: Instead of the colours: maps a name and the image, shape (height, width, 3), to its (u, v) [px].
        names: Answer to the keypoint elicitation prompt.
        key: The only key that it accepts, or None to accept all.
        port: 0 for any free one.
    """

    def __init__(
        self,
        *,
        colours: Mapping[str, tuple[int, int, int]] | None = None,
        locate: Locate | None = None,
        names: Sequence[str] = ("apple", "cutting board"),
        key: str | None = None,
        port: int = 0,
    ) -> None:
        self.requests: list[Seen] = []
        self.peak = 0
        """Most requests that were open at the same time."""
        self._locate = locate or (lambda name, rgb: blob(rgb, (colours or {}).get(name)))
        self._names, self._key, self._open = names, key, 0
        self._scripts: dict[str, deque[Behaviour]] = defaultdict(deque)
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", port), type("Handler", (_Handler,), {"vlm": self}))
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"

    def __enter__(self) -> Self:
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def misbehave(self, kind: str, *behaviours: str | Behaviour) -> None:
        """Queues behaviours for the next requests of a kind: elicitation, keypoints or trajectory; then all is well."""
        self._scripts[kind].extend(BEHAVIOURS[b] if isinstance(b, str) else b for b in behaviours)

    def kinds(self) -> list[str]:
        """The kind of every request that arrived, in order."""
        return [seen.kind for seen in self.requests]

    def serve(self, body: dict[str, Any], headers: dict[str, str], path: str) -> tuple[Behaviour, str]:
        """The behaviour towards one request, and the body of the response."""
        text, images = _prompt(body)
        kind = _kind(text)
        with self._lock:
            self.requests.append(Seen(kind, body, headers))
            behaviour = self._scripts[kind].popleft() if self._scripts[kind] else Behaviour()
            self._open += 1
            self.peak = max(self.peak, self._open)
        try:
            time.sleep(behaviour.sleep)
            offered = headers.get("authorization", "").removeprefix("Bearer ")
            if self._key is not None and offered != self._key:
                behaviour = Behaviour(status=401, body=_error(401, f"Incorrect API key provided: {offered}."))
            if not path.endswith("/v1/chat/completions"):
                behaviour = Behaviour(status=404, body=_error(404, f"no route {path}"))
            if behaviour.body is not None:
                return behaviour, behaviour.body
            if behaviour.status != 200:
                return behaviour, _error(behaviour.status, f"simulated {behaviour.status}")
            answer = behaviour.rewrite(self._answer(kind, text, images, str(body.get("model"))))
            return behaviour, _completion(body, text, answer, len(images), behaviour.extra)
        finally:
            with self._lock:
                self._open -= 1

    def _answer(self, kind: str, text: str, images: list[np.ndarray], model: str) -> str:
        if kind == "elicitation":
            return json.dumps(list(self._names))
        if kind == "trajectory":
            return json.dumps(trajectory(text))
        assert images, "the pointing prompt came without an image"
        names = re.findall(r'"name": "([^"]+)"', text) or [html.unescape(n) for n in re.findall(r'alt="([^"]+)"', text)]
        answers = []
        for image in images:
            pixels = {name: self._locate(name, image) for name in names}
            answers.append(point_answer(text, pixels, image.shape[1], image.shape[0]))
        if len(images) == 1:
            return answers[0]
        return json.dumps([{"image": n} | point for n, a in enumerate(answers, 1) for point in json.loads(a)])


def trajectory(text: str) -> list[dict[str, Any]]:
    """A plausible trajectory in the form of the prompt: approach, grasp, then carry, pull or swing."""
    count = int(re.findall(r"exactly (\d+) waypoints", text)[-1])
    starts = {
        name: np.array([float(v) for v in position.split(",")])
        for name, position in re.findall(r"initial position of the (.+?) is \[([^\]]+)\]", text)
    }
    hand = starts.pop("hand")
    first, *others = starts
    task = text[: text.index("waypoints")].lower()
    together = [first]
    if "hammer" in task:
        together, moves = list(starts), [(0, 0, z) for z in (0.12, 0.02) * 3]
    elif re.search(r"drawer|pull|fridge|door", task):
        moves = [(-0.3, 0, 0)]
    elif re.search(r"scissors|plier", task):
        together, moves = list(starts), [(0, 0, 0.02)]
    elif others:
        goal = starts[others[0]] - starts[first] + (0, 0, 0.04)
        moves = [(0, 0, 0.12), (goal[0], goal[1], max(goal[2] + 0.06, 0.12)), goal]
    else:
        moves = [(0.0, 0.15, 0), (0.0, -0.15, 0)] * 2
    grasp = starts[first] + (0, 0, 0.02)
    offsets = np.array([(0, 0, 0), (0, 0, 0), *moves], float)
    hands = np.array([hand, *(grasp + offset for offset in offsets[1:])])
    # Constant speed along the hand's path, except that a lift takes a waypoint of its own.
    lengths = np.maximum(np.linalg.norm(np.diff(hands, axis=0), axis=1), 1e-6)
    times, query = np.concatenate(([0], np.cumsum(lengths))), np.linspace(0, lengths.sum(), count)

    def along(path: np.ndarray) -> np.ndarray:
        return np.stack([np.interp(query, times, path[:, axis]) for axis in range(3)], 1)

    tracks = {name: start + along(offsets) * (name in together) for name, start in starts.items()}
    tracks["hand"] = along(hands)
    waypoints: list[dict[str, Any]] = [
        {"waypoint_num": i} | {n: dict(zip("xyz", np.round(t[i], 3).tolist(), strict=True)) for n, t in tracks.items()}
        for i in range(count)
    ]
    if '"roll": float' in text:  # as it is held, and then turned to the left by 60 degrees
        held = re.findall(r"initial roll, pitch and yaw of the hand are \[([^\]]+)\]", text)[-1]
        roll, pitch, yaw = (float(v) for v in held.split(","))
        for i, waypoint in enumerate(waypoints):
            waypoint["hand"] |= {"roll": roll, "pitch": pitch, "yaw": round(yaw + 60 * i / (count - 1), 1)}
    return waypoints


def point_answer(text: str, pixels: Mapping[str, tuple[float, float]], width: int, height: int) -> str:
    """Pixels (u, v) in the convention that the pointing prompt asks for."""
    if "percent" in text:
        tag = '<point x="{:.2f}" y="{:.2f}" alt="{name}">{name}</point>'
        percent = {html.escape(name): (u / width * 100, v / height * 100) for name, (u, v) in pixels.items()}
        return " ".join(tag.format(*point, name=name) for name, point in percent.items())
    if "0-1000" in text:
        scale_x, scale_y = 1000 / width, 1000 / height
    elif "absolute pixels" in text:  # of the image that the model sees: multiples of 28
        scale_x, scale_y = round(width / 28) * 28 / width, round(height / 28) * 28 / height
    else:
        scale_x = scale_y = 1.0
    points = {n: [round(u * scale_x, 1), round(v * scale_y, 1)] for n, (u, v) in pixels.items()}
    flip = -1 if "[y, x]" in text else 1
    return json.dumps([{"name": n, "point": p[::flip]} for n, p in points.items()])


def blob(rgb: np.ndarray, colour: tuple[int, int, int] | None) -> tuple[float, float]:
    """(u, v) of a pixel in the middle of what has the colour nearest to one; the image's middle without a colour."""
    height, width = rgb.shape[:2]
    if colour is None:
        return width / 2, height / 2
    distance = np.abs(rgb.astype(int) - np.array(colour)).sum(-1)
    rows, columns = np.nonzero(distance <= distance.min() + 30)
    middle = np.argmin(np.hypot(rows - np.median(rows), columns - np.median(columns)))  # a pixel of it, also of a ring
    return columns[middle] + 0.5, rows[middle] + 0.5


def _prompt(body: dict[str, Any]) -> tuple[str, list[np.ndarray]]:
    """Text and images of the first message: a repair turn is about the same question."""
    content = (body.get("messages") or [{}])[0].get("content", "")
    if isinstance(content, str):
        return content, []
    text = "\n".join(part["text"] for part in content if part["type"] == "text")
    urls = [part["image_url"]["url"] for part in content if part["type"] == "image_url"]
    pictures = (io.BytesIO(base64.b64decode(url.removeprefix("data:image/png;base64,"))) for url in urls)
    return text, [np.asarray(Image.open(picture).convert("RGB")) for picture in pictures]


def _kind(text: str) -> str:
    if re.search(r"exactly \d+ waypoints", text):
        return "trajectory"
    return "keypoints" if "Point to" in text else "elicitation"


def _completion(body: dict[str, Any], text: str, answer: str, images: int, extra: Mapping[str, Any]) -> str:
    tokens = len(text) // 4 + 258 * images, len(answer) // 4
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": answer},
        "finish_reason": extra.get("finish_reason", "stop"),
    }
    usage = {"prompt_tokens": tokens[0], "completion_tokens": tokens[1], "total_tokens": sum(tokens)}
    completion = {
        "id": "chatcmpl-0",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": body.get("model"),
    }
    return json.dumps(completion | {"choices": [choice], "usage": extra.get("usage", usage)})


def _error(status: int, message: str) -> str:
    return json.dumps({"error": {"message": message, "type": "simulated", "code": str(status)}})


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet; two would cost 40 ms of delayed acknowledgement
    vlm: VlmServer

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        behaviour, response = self.vlm.serve(json.loads(body or b"{}"), headers, self.path)
        if behaviour.drop:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        data = response.encode()
        try:
            self.send_response(behaviour.status)
            self.send_header("content-type", "text/html" if response.startswith("<") else "application/json")
            self.send_header("content-length", str(len(data)))
            if behaviour.retry_after is not None:
                self.send_header("retry-after", behaviour.retry_after)
            self.end_headers()
            self.wfile.write(data)
            self.wfile.flush()
        except OSError:  # the client has given up waiting
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass


def main() -> None:
    """Serves until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0, help="0 for any free one")
    parser.add_argument(
        "--colour", action="append", default=[], metavar="NAME=R,G,B", help="what a keypoint looks like"
    )
    parser.add_argument("--misbehave", action="append", default=[], metavar="KIND:WHAT", help=", ".join(BEHAVIOURS))
    args = parser.parse_args()
    pairs = (colour.partition("=") for colour in args.colour)
    colours: Any = {name: tuple(int(v) for v in rgb.split(",")) for name, _, rgb in pairs}
    with VlmServer(colours=colours, port=args.port) as server:
        for kind, _, what in (entry.partition(":") for entry in args.misbehave):
            server.misbehave(kind, what)
        print(f"export SCAFFOLDLAB_BASE_URL={server.url} SCAFFOLDLAB_MODEL=gemini-loopback", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
