"""Writes what an evaluation found: metrics.json, episodes.npz, plots, and one page that needs nothing else."""

import base64
import io
import json
import math
import os
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scaffoldlab.errors import ScaffoldError
from scaffoldlab.evaluation import plots
from scaffoldlab.evaluation.episodes import KEYPOINT_LIMIT, OUTCOMES, ZERO_ACTION, Episodes
from scaffoldlab.files import write_atomic
from scaffoldlab.templates import templates

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from scaffoldlab.plans.library import PlanLibrary

METRICS = {
    "task": "name of the task",
    "plan_source": "who planned: oracle, recorded, or the model's name",
    "physics": "physics engine",
    "device": "what the simulation ran on",
    "seed": "seed of the initial states and of the sampled actions",
    "trials": "episodes from each initial state, with each policy",
    "env_steps": "control steps simulated, summed over all envs",
    "wall_seconds": "time that they took [s]",
    "episodes": "episodes of the policy under evaluation",
    "success_rate": "its share of successful episodes",
    "success_stderr": "standard error of that, over initial states",
    "sampled_success_rate": "success rate of the policy with sampled actions; null if it was not run",
    "zero_action_success_rate": "success rate of following the plan with an open hand; null if it was not run",
}
"""Keys of metrics.json. The last five are computed from the episodes."""

_MEASURED = ("episodes", "success_rate", "success_stderr", "sampled_success_rate", "zero_action_success_rate")
_SOURCES = {
    "oracle, perturbed": "written by the scripted oracle and made wrong on purpose; no model was asked",
    "oracle": "written by the scripted oracle, which reads the true state; no model was asked",
    "recorded": "recorded replies of a vision-language model, replayed; no model was asked in this run",
}


def write_report(
    folder: str | os.PathLike[str],
    *,
    instruction: str,
    metrics: Mapping[str, Any],
    episodes: Sequence[Episodes],
    training: Sequence[dict[str, Any]] | None = None,
    plan_pictures: Mapping[int, np.ndarray] | None = None,
    video: str | os.PathLike[str] | None = None,
) -> dict[str, Any]:
    """Writes the report of an evaluation; all of it or, on a full disk, nothing.

    - ``metrics.json``: ``metrics``, the measured keys of :data:`METRICS`, and ``policies``, which maps each policy to
      :meth:`Episodes.summary`. What is not a number, or infinite, is null.
    - ``episodes.npz``: one row per episode, of all policies in turn: ``policy`` (index into ``policies``), ``plan_id``,
      ``success``, ``success_end``, ``keypoint_error`` [m], ``outcome`` (index into ``outcomes``), ``error`` [m] of
      shape (N, T); and ``threshold`` [m] of each policy.
    - ``success.png``, ``outcomes.png``, ``tracking.png`` and ``training.png``.
    - ``index.html``: all of it on one page, which loads nothing.

    Args:
        folder: Where to write; made if missing.
        instruction: The sentence that the robot was given.
        metrics: The keys of :data:`METRICS` that are not measured, and any more, as JSON values.
        episodes: The policy under evaluation first, then others and the baselines, all with T steps.
        training: Rows with ``env_steps``, ``wall_seconds``, ``train_success``, ``eval_success``,
            ``eval_sampled_success``, ``tracking_error_m``, ``steps_per_second`` and ``delta_m``; a value may be None.
        plan_pictures: Pictures of some plans by plan number, each of shape (H, W, 3), uint8.
        video: An mp4 file of episodes of the policy under evaluation.

    Returns:
        What is in ``metrics.json``.

    Raises:
        ScaffoldError: A metric is missing, there are no policies or two of one name, or a file cannot be read or
            written.
    """
    if missing := [key for key in METRICS if key not in metrics and key not in _MEASURED]:
        raise ScaffoldError(
            f"{folder}: a report needs the metrics {', '.join(missing)}; got {', '.join(metrics) or 'none'}."
        )
    policies = [e.policy for e in episodes]
    if not policies or len(set(policies)) < len(policies):
        raise ScaffoldError(f"{folder}: a report needs at least one policy, each of its own name; got {policies}.")
    head = episodes[0]
    rates = {e.policy: e.success_rate for e in episodes}
    numbers = len(head.success), head.success_rate, head.success_stderr, rates.get("sampled"), rates.get(ZERO_ACTION)
    measured = dict(zip(_MEASURED, numbers, strict=True))
    given = {**metrics, **measured, "policies": {e.policy: e.summary() for e in episodes}}
    values: dict[str, Any] = _json({key: given[key] for key in METRICS} | given)
    figures = {
        "success": plots.success_bars(episodes),
        "outcomes": plots.outcome_bars(episodes),
        "tracking": plots.tracking_error(head),
    }
    if training:
        figures["training"] = plots.training_curve(training)
    page = _page(
        values,
        figures,
        instruction=instruction,
        episodes=episodes,
        training=training or (),
        plan_pictures=plan_pictures or {},
        video=video,
    )
    files = {f"{name}.png": plots.png(figure) for name, figure in figures.items()}
    files |= {
        "episodes.npz": _episodes_file(episodes),
        "index.html": page.encode(),
        "metrics.json": (json.dumps(values, indent=2, allow_nan=False) + "\n").encode(),
    }
    staging = Path(folder, f".{secrets.token_hex(8)}.tmp")
    try:
        for name, data in files.items():  # a full disk shows here, before anything old is replaced
            write_atomic(staging / name, data)
        for name in files:
            os.replace(staging / name, Path(folder, name))
    except OSError as error:
        raise ScaffoldError(f"{folder}: the report could not be moved into place ({error.strerror}).") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return values


def plan_source(library: "PlanLibrary") -> str:
    """Who made the plans, in the words of the report.

    ``oracle``, ``oracle, perturbed (axis_flip 0.05, ...)``, ``recorded (model)`` or the model's name, and
    ``..., keypoints by the oracle`` where an oracle did a part.
    """
    planner = library.header.get("planner", "")
    model = library.plans[0].provenance.get("model", "unknown model")
    errors = ", ".join(f"{name} {value:g}" for name, value in sorted(library.header.get("perturbation", {}).items()))
    sources = {
        "scripted": "oracle",
        "perturbed": f"oracle, perturbed ({errors})",
        "replay": f"recorded ({model})",
        "prerecorded": "oracle, for other states",
        "goal": "oracle, its goal only",
    }
    source = sources.get(planner, str(model))
    if part := library.plans[0].provenance.get("oracle"):
        source += f", {part} by the oracle"
    noise = library.header.get("waypoint_noise_m", 0.0)
    return f"{source} with {100 * noise:g} cm waypoint noise" if noise else source


def _page(
    values: Mapping[str, Any],
    figures: Mapping[str, "Figure"],
    *,
    instruction: str,
    episodes: Sequence[Episodes],
    training: Sequence[dict[str, Any]],
    plan_pictures: Mapping[int, np.ndarray],
    video: str | os.PathLike[str] | None,
) -> str:
    """The page, filled into report.html.j2."""
    environment = templates("scaffoldlab.evaluation")
    environment.filters |= {"percent": _percent, "cm": _cm, "value": _value, "duration": _duration}
    source = str(values["plan_source"])
    speeds = [row["steps_per_second"] for row in training if row.get("steps_per_second")]
    return environment.get_template("report.html.j2").render(
        values=values,
        meanings=METRICS,
        instruction=instruction,
        episodes=episodes,
        head=episodes[0],
        states=len(np.unique(episodes[0].plan_id)),
        best=plots.best_timed_close(episodes),
        is_baseline=plots.is_baseline,
        keypoint_limit=KEYPOINT_LIMIT,
        sources=_SOURCES,
        planner=next((text for word, text in _SOURCES.items() if source.startswith(word)), ""),
        svg={name: plots.svg(figure, label=_label(name, episodes)) for name, figure in figures.items()},
        training=training,
        speed=float(np.median(speeds)) if speeds else None,
        pictures=[(_webp(picture), _caption(episodes[0], i)) for i, picture in plan_pictures.items()],
        video=_data_uri("video/mp4", _read(video)) if video is not None else None,
        theme=plots.THEME,
        outcome_colors=plots.OUTCOME_COLORS,
    )


def _label(name: str, episodes: Sequence[Episodes]) -> str:
    """A figure in words."""
    if name == "success":
        rates = (f"{e.policy} {_percent(e.success_rate)} ± {_percent(e.success_stderr)} %" for e in episodes)
        return f"Bar chart of success rates: {', '.join(rates)}."
    if name == "outcomes":
        ends = (
            f"{e.policy}: {', '.join(f'{n} {outcome}' for outcome, n in e.summary()['outcomes'].items())}"
            for e in episodes
        )
        return f"Stacked bars of how the episodes ended. {'; '.join(ends)}."
    if name == "tracking":
        return f"Tracking error of {episodes[0].policy} at each control step, successes apart from failures."
    return "Success and tracking error over the env steps of the training."


def _caption(record: Episodes, plan: int) -> str:
    """What became of a plan, e.g. ``2 of 3 succeeded``; empty if it was not run."""
    runs = record.success[record.plan_id == plan]
    if len(runs) < 2:
        return OUTCOMES[record.outcome[record.plan_id == plan][0]] if len(runs) else ""
    return f"{runs.sum()} of {len(runs)} succeeded"


def _episodes_file(episodes: Sequence[Episodes]) -> bytes:
    """The arrays of all episodes, as an npz file."""

    def column(values: Callable[[Episodes], np.ndarray]) -> np.ndarray:
        return np.concatenate([values(e) for e in episodes])

    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        policies=np.array([e.policy for e in episodes]),
        outcomes=np.array(OUTCOMES),
        threshold=np.array([e.threshold for e in episodes]),
        policy=np.repeat(np.arange(len(episodes)), [len(e.success) for e in episodes]),
        plan_id=column(lambda e: e.plan_id),
        success=column(lambda e: e.success),
        success_end=column(lambda e: e.success_end),
        outcome=column(lambda e: e.outcome),
        keypoint_error=column(lambda e: e.keypoint_error),
        error=column(lambda e: e.error),
    )
    return buffer.getvalue()


def _json(value: Any) -> Any:
    """The value in plain JSON types; what is not finite becomes None."""
    if isinstance(value, Mapping):
        return {str(key): _json(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_json(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _webp(picture: np.ndarray) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    image = Image.fromarray(picture)
    image.thumbnail((640, 640))
    image.save(buffer, "webp", quality=85)
    return _data_uri("image/webp", buffer.getvalue())


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _read(path: str | os.PathLike[str]) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ScaffoldError(f"{path}: the video could not be read ({error.strerror}).") from error


def _percent(share: float) -> str:
    return "100" if share == 1 else f"{100 * share:.1f}"


def _cm(meters: float | None) -> str:
    return "–" if meters is None else f"{100 * meters:.3g}"


def _value(value: Any) -> str:
    """A metric as text, e.g. ``1,500,000`` or ``0.875``."""
    match value:
        case None:
            return "–"
        case bool():
            return "yes" if value else "no"
        case str():
            return value
        case int():
            return f"{value:,}"
        case float():
            return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return json.dumps(value)


def _duration(seconds: float | None) -> str:
    """E.g. ``1 h 12 min``."""
    if seconds is None:
        return "–"
    minutes, second = divmod(round(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour} h {minute} min" if hour else f"{minute} min {second} s" if minute else f"{seconds:.3g} s"
