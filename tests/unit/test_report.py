"""The report: true numbers, one page that needs nothing else, a video that plays, nothing lost on a full disk."""

import base64
import errno
import io
import json
import os
import re
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image, ImageDraw

from scaffoldlab.errors import ScaffoldError
from scaffoldlab.evaluation import plots
from scaffoldlab.evaluation.episodes import Episodes
from scaffoldlab.evaluation.report import METRICS, write_report
from scaffoldlab.evaluation.video import side_by_side, tiled, write_mp4

INSTRUCTION = 'Move the "apple" & <b>nothing</b> else.'
GIVEN = {
    "task": "move_apple",
    "physics": "mujoco_warp",
    "device": "cpu",
    "seed": 7,
    "trials": 2,
    "plan_source": "recorded",
    "env_steps": 1_234_567,
    "wall_seconds": np.float32(4350.0),
    "checkpoint": "model_300.pt",
}
TRAINING = [
    {"env_steps": 1000 * i, "wall_seconds": 2.0 * i, "train_success": 0.01 * i, "eval_success": 0.1 if i % 4 else None,
     "eval_sampled_success": None, "tracking_error_m": 0.05, "steps_per_second": 500.0, "delta_m": 0.1}
    for i in range(1, 9)
]  # fmt: skip


def make_episodes(policy, successes, *, states=4, trials=2, steps=6):
    """Of 8 episodes, the first ones succeed; the others lose the plan at the last step."""
    success = np.arange(states * trials) < successes
    error = np.full((states * trials, steps), 0.01)
    error[~success, -1] = 0.3
    return Episodes(
        policy=policy,
        success=success,
        success_end=success,
        error=error,
        keypoint_error=np.zeros(len(success)),
        threshold=0.1,
        plan_id=np.arange(len(success)) // trials,
    )


def make_policies():
    counts = {"deterministic": 7, "sampled": 6, "zero action": 1, "timed close at 0.30": 2, "timed close at 0.40": 3}
    return [make_episodes(policy, successes) for policy, successes in counts.items()]


def make_clip(color, length, height=24, width=32):
    return np.full((length, height, width, 3), color, np.uint8)


class Page(HTMLParser):
    """Everything of a page that could be loaded, and its text."""

    def __init__(self, text):
        super().__init__()
        self.addresses, self.tags, self.ids, self.images, self.words = [], [], [], [], ""
        self.feed(text)
        self.text = " ".join(self.words.split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        attributes = dict(attrs)
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.images += [attributes] if tag in ("img", "svg", "video") else []
        self.addresses += [v for k, v in attrs if k in ("src", "href", "xlink:href", "srcset", "poster", "data")]

    def handle_data(self, data):
        self.words += f" {data}"


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "made"
    video = folder.parent / "video.mp4"
    video.write_bytes(b"as good as a video")
    picture = np.zeros((48, 64, 3), np.uint8)
    write_report(
        folder,
        instruction=INSTRUCTION,
        metrics=GIVEN,
        episodes=make_policies(),
        training=TRAINING,
        plan_pictures=dict(enumerate([picture, picture])),
        video=video,
    )
    return folder


@pytest.fixture(scope="module")
def page(report):
    return Page((report / "index.html").read_text())


def test_metrics_have_the_documented_keys_and_the_measured_numbers(report):
    metrics = json.loads((report / "metrics.json").read_text())
    assert list(metrics) == [*METRICS, "checkpoint", "policies"]
    assert set(METRICS) == {
        "task", "physics", "device", "episodes", "trials", "seed", "success_rate", "success_stderr",
        "sampled_success_rate", "zero_action_success_rate", "plan_source", "env_steps", "wall_seconds",
    }  # fmt: skip
    assert (metrics["episodes"], metrics["success_rate"]) == (8, 0.875)
    assert (metrics["sampled_success_rate"], metrics["zero_action_success_rate"]) == (0.75, 0.125)
    assert metrics["success_stderr"] == pytest.approx(0.125)  # rates 1, 1, 1, 1/2 of the states: 0.25 / sqrt(4)
    assert metrics["wall_seconds"] == 4350.0
    assert metrics["policies"]["timed close at 0.40"]["success_rate"] == 0.375


def test_episodes_come_back_one_by_one(report):
    with np.load(report / "episodes.npz") as arrays:
        assert arrays["error"].shape == (40, 6)
        for index, record in enumerate(make_policies()):
            rows = arrays["policy"] == index
            assert arrays["policies"][index] == record.policy
            for name in ("success", "success_end", "plan_id", "keypoint_error", "error", "outcome"):
                np.testing.assert_array_equal(arrays[name][rows], getattr(record, name))


def test_page_loads_nothing(report, page):
    text = (report / "index.html").read_text()
    outside = re.sub(r"data:[\w/]+;base64,[\w+/=]+", "", text)
    assert not re.search(r"https?:|//\w|@import|<script|\bon\w+=", outside)
    assert page.addresses
    assert all(a.startswith(("data:", "#")) for a in page.addresses)
    styled = set(re.findall(r"url\(([^)]*)\)", outside))
    assert all(a.startswith("#") for a in styled)
    targets = {a[1:] for a in (*page.addresses, *styled) if a.startswith("#")}
    assert targets <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    assert set(re.findall(r"var\(--(\w+)\)", text)) <= set(plots.THEME)


def test_page_shows_the_number_and_where_it_comes_from(page):
    for words in (
        f"“{INSTRUCTION}”",
        "87.5 % ± 12.5 %",
        "8 episodes succeeded",
        "over 4 initial states, seed 7",
        "best timed close 37.5 %",
        "zero action 12.5 %",
        "plans recorded",
        "physics mujoco_warp",
        "device cpu",
        "simulated in 1 h 12 min 1,234,567 steps",
        "replayed; no model was asked",
        "plan 0 2 of 2 succeeded",
    ):
        assert words in page.text


def test_everything_shown_is_also_said(page):
    assert all(image.get("alt") or image.get("aria-label") for image in page.images)
    assert page.tags.count("svg") == 4
    assert page.tags.count("img") == 2
    labels = " ".join(image.get("aria-label") or "" for image in page.images)
    assert "deterministic 87.5 ± 12.5 %" in labels
    assert "1 tracking lost" in labels


def test_media_are_embedded_whole(page):
    media = dict(a.removeprefix("data:").split(";base64,") for a in page.addresses if ";base64," in a)
    assert base64.b64decode(media["video/mp4"]) == b"as good as a video"
    assert Image.open(io.BytesIO(base64.b64decode(media["image/webp"]))).size == (64, 48)


def test_plots_are_pictures_too(report):
    for name in ("success", "outcomes", "tracking", "training"):
        assert Image.open(report / f"{name}.png").width == 1000


def test_report_of_a_lone_policy_without_extras_and_with_broken_numbers(tmp_path):
    record = make_episodes("zero action", 0, states=1, trials=1)
    record.error[:, 3:] = np.nan
    write_report(tmp_path, instruction="Wait.", metrics=GIVEN | {"wall_seconds": None}, episodes=[record])
    assert sorted(os.listdir(tmp_path)) == [
        "episodes.npz", "index.html", "metrics.json", "outcomes.png", "success.png", "tracking.png",
    ]  # fmt: skip
    metrics = json.loads((tmp_path / "metrics.json").read_text(), parse_constant=pytest.fail)
    assert metrics["policies"]["zero action"]["mean_tracking_error_m"] is None
    page = Page((tmp_path / "index.html").read_text())
    assert "0.0 % ± 0.0 %" in page.text
    assert "video" not in page.tags
    assert "nan" not in page.text


def test_policies_that_were_not_run_are_null_and_the_metrics_come_back(tmp_path):
    metrics = write_report(tmp_path, instruction="Wait.", metrics=GIVEN, episodes=[make_episodes("deterministic", 8)])
    assert metrics["sampled_success_rate"] is metrics["zero_action_success_rate"] is None
    assert metrics == json.loads((tmp_path / "metrics.json").read_text())


def test_training_of_one_iteration_without_an_evaluation_can_be_drawn():
    figure = plots.training_curve([{"env_steps": 512, "train_success": 0.0}])
    assert [len(axes.lines) for axes in figure.axes] == [1, 0]


def test_best_timed_close_is_the_best_of_the_timed_closes_only():
    policies = make_policies()
    assert plots.best_timed_close(policies) is policies[4]
    assert plots.best_timed_close(policies[:3]) is None
    assert [plots.is_baseline(e) for e in policies] == [False, False, True, True, True]


@pytest.fixture
def plain(monkeypatch):
    """Plots that take no time."""
    monkeypatch.setattr(plots, "png", lambda figure: b"png")
    monkeypatch.setattr(plots, "svg", lambda figure, label: "<svg></svg>")


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize(("call", "number"), [("fsync", 1), ("fsync", 9), ("replace", 7)])
def test_full_disk_leaves_the_old_report_untouched(tmp_path, monkeypatch, call, number):
    episodes = make_policies()
    write_report(tmp_path, instruction="Old.", metrics=GIVEN, episodes=episodes)
    old = {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)}
    real, calls = getattr(os, call), []

    def fail(*arguments):
        calls.append(arguments)
        if len(calls) >= number:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*arguments)

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(ScaffoldError, match="No space left on device"):
        write_report(tmp_path, instruction="New.", metrics=GIVEN | {"seed": 8}, episodes=episodes[:2])
    assert {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)} == old


@pytest.mark.usefixtures("plain")
def test_unwritable_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ScaffoldError, match=r"file.*could not be written"):
        write_report(tmp_path / "file", instruction="Wait.", metrics=GIVEN, episodes=make_policies())


@pytest.mark.usefixtures("plain")
def test_missing_metrics_policies_and_video_are_named(tmp_path):
    write = lambda **given: write_report(  # noqa: E731
        tmp_path, **({"instruction": "Wait.", "metrics": GIVEN, "episodes": make_policies()} | given)
    )
    with pytest.raises(ScaffoldError, match=r"needs the metrics task, plan_source, physics.*got none"):
        write(metrics={})
    with pytest.raises(ScaffoldError, match=r"at least one policy.*got \[\]"):
        write(episodes=[])
    with pytest.raises(ScaffoldError, match=r"each of its own name; got \['sampled', 'sampled'\]"):
        write(episodes=[make_episodes("sampled", 1), make_episodes("sampled", 2)])
    with pytest.raises(ScaffoldError, match=r"gone\.mp4.*No such file"):
        write(video=tmp_path / "gone.mp4")
    assert not os.listdir(tmp_path)


# --- video ----------------------------------------------------------------------------------------------------------


def test_video_holds_the_last_frame_of_what_is_over():
    short, long = make_clip(50, 2), make_clip(200, 5)
    short[-1] = 90
    frames = list(side_by_side([short], [long], episodes=9, width=401))
    assert len(frames) == 5
    height, width = frames[0].shape[:2]
    assert (width, height % 2) == (400, 0)
    middle = [int(frame[height // 2, width // 4, 0]) for frame in frames]
    assert middle == [50, 90, 90, 90, 90]


def test_successes_are_framed_green_and_failures_red_and_the_bar_shows_the_time():
    frames = list(side_by_side([make_clip(50, 4)], [make_clip(50, 4)], episodes=2, width=400))
    height, width = frames[0].shape[:2]
    r, g, _ = frames[0][height // 2, 17].astype(int)
    assert g > r + 100
    r, g, _ = frames[0][height // 2, width - 18].astype(int)
    assert r > g + 100
    bar = np.stack([frame[-1, :, 0] for frame in frames])
    np.testing.assert_allclose((bar == bar[0, 0]).mean(1), [0.25, 0.5, 0.75, 1], atol=0.01)


def test_video_says_what_each_clip_is_and_what_is_missing(monkeypatch):
    words = []
    monkeypatch.setattr(ImageDraw.ImageDraw, "text", lambda self, at, text, *_, **__: words.append(text))
    clip = make_clip(50, 1)
    next(side_by_side([clip, clip], [clip], failure_classes=["tracking lost"], episodes=8))
    assert words == ["success", "success", "tracking lost"]
    words.clear()
    next(side_by_side([clip], [], episodes=64))
    next(side_by_side([], [clip], episodes=65))
    assert words == ["success", "no failures in 64 episodes", "no successes in 65 episodes", "failure"]


def test_video_gives_each_failure_the_class_that_the_report_gives(monkeypatch):
    """Four failures: a keypoint 6 cm off, a tracking error that is no number, one above 10 cm, and none of these."""
    words = []
    monkeypatch.setattr(ImageDraw.ImageDraw, "text", lambda self, at, text, *_, **__: words.append(text))
    success = np.array([False, True, False, False, False])
    episodes = Episodes(
        policy="deterministic",
        success=success,
        success_end=success,
        error=np.array([[0.3], [0.01], [np.nan], [0.3], [0.01]]),
        keypoint_error=np.array([0.06, 0.0, 0.0, 0.0, 0.0]),
        threshold=0.1,
        plan_id=np.arange(5),
    )
    next(tiled([make_clip(50, 1)] * 5, episodes))
    assert words == ["success", "keypoint wrong", "tracking lost", "tracking lost", "tracked but failed"]


@pytest.mark.parametrize(
    ("successes", "failures", "classes", "message"),
    [
        ([], [], None, r"shapes \[\].*at least one"),
        ([np.zeros((2, 24, 32))], [], None, r"\(2, 24, 32\)"),
        ([], [make_clip(0, 2)], [], "0 failure classes; allowed: 1"),
    ],
)
def test_video_of_something_else_is_refused_at_once(successes, failures, classes, message):
    with pytest.raises(ScaffoldError, match=message):
        side_by_side(successes, failures, failure_classes=classes, episodes=3)


def test_mp4_decodes_to_the_same_frames(tmp_path):
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    frames = [np.full((33, 47, 3), (10 * i, 120, 200), np.uint8) for i in range(14)]
    write_mp4(frames, tmp_path / "deep" / "video.mp4", fps=20)
    assert os.listdir(tmp_path / "deep") == ["video.mp4"]
    reader = ffmpeg.read_frames(str(tmp_path / "deep" / "video.mp4"))
    meta = next(reader)
    decoded = [np.frombuffer(frame, np.uint8).reshape(34, 48, 3) for frame in reader]
    assert (meta["size"], meta["fps"], meta["codec"]) == ((48, 34), 20.0, "h264")
    assert meta["pix_fmt"].startswith("yuv420p")
    assert len(decoded) == len(frames)
    for frame, truth in zip(decoded, frames, strict=True):
        np.testing.assert_allclose(frame[:33, :47].mean((0, 1)), truth[0, 0], atol=6)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([], "got no frame"),
        ([np.zeros((16, 16, 3), np.uint8), np.zeros((16, 18, 3), np.uint8)], r"frame 1 has shape \(16, 18, 3\)"),
        ([np.zeros((16, 16, 3))], "float64"),
    ],
)
def test_failed_video_keeps_the_old_one(tmp_path, frames, message):
    pytest.importorskip("imageio_ffmpeg")
    (tmp_path / "video.mp4").write_bytes(b"old")
    with pytest.raises(ScaffoldError, match=message):
        write_mp4(frames, tmp_path / "video.mp4")
    assert (tmp_path / "video.mp4").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["video.mp4"]


def test_failing_encoder_is_quoted(tmp_path, monkeypatch):
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    script = tmp_path / "ffmpeg"
    script.write_text("#!/bin/sh\necho 'No space left on device' >&2\nexit 1\n")
    script.chmod(0o755)
    monkeypatch.setattr(ffmpeg, "get_ffmpeg_exe", lambda: str(script))
    with pytest.raises(ScaffoldError, match="could not encode the video: No space left on device"):
        write_mp4([np.zeros((256, 256, 3), np.uint8)] * 9, tmp_path / "video.mp4")


def test_missing_encoder_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(ScaffoldError, match="pip install imageio-ffmpeg"):
        write_mp4([np.zeros((16, 16, 3), np.uint8)], tmp_path / "video.mp4")
