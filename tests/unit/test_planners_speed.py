"""A hundred plans from a slow endpoint: nothing but its latency takes time, and what was paid for is not paid again."""

import subprocess
import sys
import time
from functools import cache

import numpy as np
import pytest
from test_making import RED, WOOD

from scaffoldlab.camera import Camera, RgbdImage
from scaffoldlab.planners.ledger import Ledger
from scaffoldlab.planners.making import make_library, make_request
from scaffoldlab.planners.settings import VlmSettings
from scaffoldlab.planners.vlm import vlm_planner
from scaffoldlab.specs.models import load_task
from vlm_server import VlmServer

PLANS = 100


class SlowServer(VlmServer):
    """The loopback model, which takes its time for every answer, as a hosted one does."""

    latency_s = 1.0

    def _answer(self, *args):
        time.sleep(self.latency_s)
        return super()._answer(*args)


@pytest.fixture
def model(monkeypatch):
    monkeypatch.setenv("SCAFFOLDLAB_API_KEY", "sk-of-the-loopback-model")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with SlowServer(colours={"apple": RED, "cutting board": WOOD}) as server:
        yield server


@cache
def images() -> list[RgbdImage]:
    """Small pictures of the initial states: one dot at each true keypoint, with its depth."""
    apple = load_task("move_apple")
    spec = apple.scene.camera
    camera = Camera.look_at(spec.eye, spec.target, width=96, height=96, fov_deg=spec.fov_deg)
    pictures = []
    for index in range(PLANS):
        # The apple is seen on the side of the camera: its surface is 3.7 cm before its centre.
        points_e = make_request(apple, seed=7, index=index).keypoints_e
        depths = (points_e - camera.pose_ec[:3, 3]) @ camera.pose_ec[:3, 2] - (0.037, 0.0)
        rgb, depth = np.full((96, 96, 3), 90, np.uint8), np.full((96, 96), 1.5)
        for (u, v), metres, colour in zip(camera.project(points_e).astype(int), depths, (RED, WOOD), strict=True):
            rgb[v, u], depth[v, u] = colour, metres
        pictures.append(RgbdImage(rgb, depth, camera))
    return pictures


def make(url, ledger, *, count=PLANS, concurrency=16, batch=1, **oracle):
    apple = load_task("move_apple")
    options = VlmSettings(base_url=url, model="gemini-loopback", concurrency=concurrency, batch=batch, image_size=96)
    planner = vlm_planner(options, ledger=ledger, **oracle)
    return make_library(apple, planner, count=count, seed=7, images=images()[:count], concurrency=concurrency)


@pytest.mark.parametrize(
    ("rounds", "calls", "given"),
    [(13, 200, {}), (8, 113, {"batch": 8}), (7, 100, {"true_keypoints": True})],
    ids=["two calls", "keypoints of 8 in a call", "one call"],
)
def test_hundred_plans_take_little_more_than_the_latency_of_their_calls(model, tmp_path, rounds, calls, given):
    """Rounds of 16 calls: at 1 s of latency 13 s with two calls a plan, one after the other, and 7 s with one."""

    def timed(latency_s):
        model.latency_s, model.requests = latency_s, []
        started = time.monotonic()
        library = make(model.url, tmp_path / f"{latency_s}.jsonl", **given)
        assert len(library) == PLANS and len(model.requests) == calls
        return time.monotonic() - started

    images()
    work, floor = timed(0.0), rounds * 0.25
    assert timed(0.25) <= 1.5 * (floor + work)
    assert model.peak == 16


def test_killed_run_with_many_calls_in_flight_pays_again_only_for_those(model, tmp_path):
    """SIGKILL: what was in flight is lost with the process; everything that was recorded is not asked again."""
    model.latency_s, ledger, count = 0.2, tmp_path / "ledger.jsonl", 48
    code = f"import sys; sys.path[:0] = {sys.path!r}; import test_planners_speed as t\n"
    code += f"t.make({model.url!r}, {str(ledger)!r}, count={count})"
    with subprocess.Popen([sys.executable, "-c", code]) as child:
        deadline = time.monotonic() + 60
        while len(model.requests) < count and time.monotonic() < deadline and child.poll() is None:
            time.sleep(0.01)
        child.kill()
    time.sleep(2 * model.latency_s)  # the server ends what it was asked
    recorded = Ledger.open(ledger).records
    before = len(model.requests)
    assert 0 < len(recorded) < 2 * count and before - len(recorded) <= 16
    library = make(model.url, ledger, count=count)
    assert len(library) == count and len(model.requests) == before + 2 * count - len(recorded)
    calls = [(r.index, r.kind) for r in Ledger.read(ledger).records]
    assert len(calls) == len(set(calls)) == 2 * count
