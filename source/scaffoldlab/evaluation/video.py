"""A video of successes and failures side by side."""

import itertools
import math
import os
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from scaffoldlab.errors import ScaffoldError
from scaffoldlab.evaluation.episodes import OUTCOMES, Episodes
from scaffoldlab.evaluation.plots import THEME
from scaffoldlab.files import write_atomic

_DARK = {name: dark for name, (_, dark) in THEME.items()}
_RED = "#f4595f"
_GAP, _BAND, _BORDER, _BAR = 16, 36, 4, 10  # margin, caption, frame of a tile, time bar [px]

type _Tile = tuple[np.ndarray, str, str]  # clip, caption, colour


def tiled(clips: Sequence[np.ndarray], episodes: Episodes) -> Iterator[np.ndarray]:
    """Tiles the clips of episodes as :func:`side_by_side` does, each failure under its class.

    Args:
        clips: One per episode, each of shape (T, H, W, 3), uint8.
        episodes: What became of them.

    Returns:
        Frames, each of shape (height, width, 3), uint8.
    """
    return side_by_side(
        [clip for clip, success in zip(clips, episodes.success, strict=True) if success],
        [clip for clip, success in zip(clips, episodes.success, strict=True) if not success],
        failure_classes=[OUTCOMES[outcome] for outcome in episodes.outcome[~episodes.success]],
        episodes=len(clips),
    )


def side_by_side(
    successes: Sequence[np.ndarray],
    failures: Sequence[np.ndarray],
    *,
    failure_classes: Sequence[str] | None = None,
    episodes: int,
    width: int = 1280,
) -> Iterator[np.ndarray]:
    """Tiles clips, successes in green frames on the left, failures in red ones on the right, above a time bar.

    A clip that is over holds its last frame. A half without clips says so.

    Args:
        successes: Clips, each of shape (T, H, W, 3), uint8; T, H and W may differ.
        failures: Clips of failed episodes, likewise.
        failure_classes: Caption of each failure, e.g. ``tracking lost``; None: ``failure``.
        episodes: Number of episodes from which the clips were taken.
        width: Width of the frames [px].

    Returns:
        As many frames as the longest clip has, each of shape (height, width, 3), uint8, with even sides.

    Raises:
        ScaffoldError: There is no clip, a clip has another shape, or the captions are not one per failure.
    """
    clips = [*successes, *failures]
    shapes = [np.shape(clip) for clip in clips]
    if not clips or any(len(shape) != 4 or shape[3] != 3 or 0 in shape for shape in shapes):
        raise ScaffoldError(f"video: got clips of shapes {shapes}; allowed: at least one (T, height, width, 3).")
    captions = ["failure"] * len(failures) if failure_classes is None else list(failure_classes)
    if len(captions) != len(failures):
        raise ScaffoldError(f"video: got {len(captions)} failure classes; allowed: {len(failures)}, one a failure.")
    halves: tuple[list[_Tile], list[_Tile]] = (
        [(clip, "success", _DARK["success"]) for clip in successes],
        [(clip, caption, _RED) for clip, caption in zip(failures, captions, strict=True)],
    )
    return _frames(halves, episodes, width - width % 2)


def write_mp4(frames: Iterable[np.ndarray], path: str | os.PathLike[str], *, fps: float = 30) -> None:
    """Writes an H.264 video that every browser plays; odd sides are padded by a pixel.

    Args:
        frames: At least one, all of one shape (height, width, 3), uint8.
        path: File to write.
        fps: Frames per second.

    Raises:
        ScaffoldError: imageio-ffmpeg is missing, there is no frame, shapes differ, ffmpeg fails or the file cannot be
            written. An old file is unchanged.
    """
    try:
        from imageio_ffmpeg import get_ffmpeg_exe
    except ImportError as error:
        raise ScaffoldError(f"{path}: a video needs imageio-ffmpeg. Run: pip install imageio-ffmpeg") from error
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise ScaffoldError(f"{path}: got no frame; a video needs at least one.")
    height, width = first.shape[:2]
    command = [
        *(get_ffmpeg_exe(), "-v", "error", "-f", "rawvideo", "-pix_fmt", "rgb24"),
        *("-s", f"{width}x{height}", "-r", str(fps), "-i", "-"),
        *("-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2,scale=out_color_matrix=bt709", "-colorspace", "bt709"),
        *("-color_primaries", "bt709", "-color_trc", "bt709", "-c:v", "libx264", "-pix_fmt", "yuv420p"),
        *("-crf", "25", "-threads", "2", "-movflags", "+faststart"),  # the index first: it plays while it loads
    ]
    with tempfile.TemporaryDirectory() as folder:
        video, log = Path(folder, "video.mp4"), Path(folder, "log")
        with log.open("wb") as stderr:
            ffmpeg = subprocess.Popen([*command, str(video)], stdin=subprocess.PIPE, stderr=stderr)
        try:
            assert ffmpeg.stdin is not None
            for number, frame in enumerate(itertools.chain((first,), frames)):
                if frame.shape != (height, width, 3) or frame.dtype != np.uint8:
                    raise ScaffoldError(
                        f"{path}: frame {number} has shape {frame.shape} and type {frame.dtype}; "
                        f"allowed: {(height, width, 3)}, uint8, as the first one."
                    )
                ffmpeg.stdin.write(np.ascontiguousarray(frame).data)
            ffmpeg.stdin.close()
        except BrokenPipeError:
            pass  # its exit status and its log tell
        except BaseException:
            ffmpeg.kill()
            raise
        finally:
            status = ffmpeg.wait()
        if status:
            reason = log.read_text(errors="replace").strip().replace("\n", "; ") or f"exit status {status}"
            raise ScaffoldError(f"{path}: ffmpeg could not encode the video: {reason}. Is the disk of {folder} full?")
        write_atomic(path, video.read_bytes())


def _frames(halves: tuple[list[_Tile], list[_Tile]], episodes: int, width: int) -> Iterator[np.ndarray]:
    """Draws what rests once, then pastes the clips and the time bar of each frame."""
    from PIL import Image, ImageDraw, ImageFont, ImageOps

    tiles = [tile for half in halves for tile in half]
    most = max(len(half) for half in halves)
    columns = math.ceil(math.sqrt(most))
    rows = math.ceil(most / columns)
    outer = (width - _GAP) // (2 * columns)  # of a tile, with margin [px]
    inner = outer - _GAP - 2 * _BORDER
    picture = inner, round(inner * max(clip.shape[1] / clip.shape[2] for clip, *_ in tiles))
    pitch = picture[1] + _BAND + _BORDER + _GAP
    height = _GAP + rows * pitch + _BAR
    canvas = Image.new("RGB", (width, height + height % 2), _DARK["page"])
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(min(22, inner / 11))

    corners: list[tuple[int, int]] = []  # of the pictures
    for side, (half, name) in enumerate(zip(halves, ("successes", "failures"), strict=True)):
        start = _GAP + side * (width - _GAP) // 2
        if not half:
            at = start + columns * outer // 2 - _GAP // 2, (height - _BAR) // 2
            draw.text(at, f"no {name} in {episodes} episodes", _DARK["muted"], font, "mm")
        for k, (_, caption, color) in enumerate(half):
            left, top = start + k % columns * outer, _GAP + k // columns * pitch
            right, bottom = left + outer - _GAP, top + pitch - _GAP
            draw.rounded_rectangle((left, top, right - 1, bottom - 1), 8, color)
            draw.text((left + 12, top + _BAND // 2), caption, _DARK["page"], font, "lm", stroke_width=0.4)
            corners.append((left + _BORDER, top + _BAND))
    bar = (0, canvas.height - _BAR, width - 1, canvas.height - 1)
    draw.rectangle(bar, _DARK["line"])

    length = max(len(clip) for clip, *_ in tiles)
    for t in range(length):
        for (clip, *_), corner in zip(tiles, corners, strict=True):
            if t < len(clip):
                frame = Image.fromarray(np.asarray(clip[t], np.uint8))
                canvas.paste(ImageOps.pad(frame, picture, Image.Resampling.BICUBIC, _DARK["page"]), corner)
        draw.rectangle((*bar[:2], round((width - 1) * (t + 1) / length), bar[3]), _DARK["muted"])
        yield np.array(canvas)
