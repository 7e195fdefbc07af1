"""Writes what an evaluation found: metrics.json, episodes.npz, plots, and one page that needs nothing else."""

import base64
import io
import json
import os
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scaffoldlab.errors import ScaffoldError
from scaffoldlab.evaluation import plots
from scaffoldlab.evaluation.episodes import KEYPOINT_LIMIT, Episodes
from scaffoldlab.files import write_atomic

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
    "zero_action_success_rate": "success rate of following the plan with an open hand; null if it was not run",
}
"""Keys of metrics.json. The last four are computed from the episodes."""

_MEASURED = ("episodes", "success_rate", "success_stderr", "zero_action_success_rate")
_SOURCES = {
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
    plan_pictures: Sequence[np.ndarray] = (),
    video: str | os.PathLike[str] | None = None,
) -> None:
    """Writes the report of an evaluation; on an error the old one is as it was.

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
        plan_pictures: Picture of plan i at position i, each of shape (H, W, 3), uint8; the first few will do.
        video: An mp4 file.

    Raises:
        ScaffoldError: A key of ``metrics`` or the episodes are missing, or a file cannot be read or written.
    """
    missing = [key for key in METRICS if key not in metrics and key not in _MEASURED]
    if missing or not episodes:
        raise ScaffoldError(
            f"{folder}: a report needs the metrics {', '.join(missing)}; got {', '.join(metrics) or 'none'}."
            if missing
            else f"{folder}: a report needs the episodes of at least one policy; got none."
        )
    zero = next((e.success_rate for e in episodes if e.policy == "zero action"), None)
    head = episodes[0]
    measured = (len(head.success), head.success_rate, head.success_stderr, zero)
    values: dict[str, Any] = _json(
        dict(metrics)
        | dict(zip(_MEASURED, measured, strict=True))
        | {"policies": {e.policy: e.summary() for e in episodes}}
    )
    figures = {
        "success": plots.success_bars(episodes),
        "outcomes": plots.outcome_bars(episodes),
        "tracking": plots.tracking_error(head),
    }
    if training:
        figures["training"] = plots.training_curve(training)
    page = _page(values, figures, instruction, episodes, training or (), plan_pictures, video)
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


def _page(
    values: Mapping[str, Any],
    figures: Mapping[str, Any],
    instruction: str,
    episodes: Sequence[Episodes],
    training: Sequence[dict[str, Any]],
    plan_pictures: Sequence[np.ndarray],
    video: str | os.PathLike[str] | None,
) -> str:
    """The page, filled into report.html.j2."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("scaffoldlab.evaluation", ""),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": _percent, "duration": _duration, "value": _value, "cm": _cm}
    head, plan_source = episodes[0], str(values["plan_source"])
    return environment.get_template("report.html.j2").render(
        values=values,
        instruction=instruction,
        head=head,
        head_trials=_trials(head),
        states=len(np.unique(head.plan_id)),
        episodes=episodes,
        is_baseline=plots.is_baseline,
        best=plots.best_timed_close(episodes),
        source=next((text for word, text in _SOURCES.items() if plan_source.startswith(word)), "made by a model"),
        sources=_SOURCES,
        figures={name: plots.svg(figure, label=_label(name, episodes)) for name, figure in figures.items()},
        speed=float(np.median([r["steps_per_second"] for r in training if r.get("steps_per_second")] or [np.nan])),
        pictures=[_picture(picture) for picture in plan_pictures],
        video=_data_uri("video/mp4", _read(video)) if video is not None else None,
        meanings=METRICS,
        theme=plots.THEME,
        outcome_colors=plots.OUTCOME_COLORS,
        keypoint_limit=KEYPOINT_LIMIT,
    )
