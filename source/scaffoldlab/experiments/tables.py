"""What an experiment has shown: a table in Markdown and CSV, a plot, and where the failures come from."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scaffoldlab.evaluation.episodes import OUTCOMES, REPLANNED
from scaffoldlab.evaluation.plots import COLORS, new_figure
from scaffoldlab.experiments.models import COMMON_DIFFERENCES, ExperimentSpec, Protocol, RowSpec
from scaffoldlab.files import write_atomic
from scaffoldlab.specs.models import load_task

if TYPE_CHECKING:
    from scaffoldlab.experiments.grid import GridResult

PAPER_FAILURES = (
    "The paper, with a model's plans, over all its tasks (section 4.3): tracking is lost in 26 % of the rollouts; "
    "wrong keypoints account for “5% of failures”, tracked but failed “contribute 3%”."
)
"""What the paper's text says about its figure 6; of what the last two are shares it leaves open."""

NO_PLAN = "no plan"
"""How an episode ends for whose state there was none: before it begins."""

SERIES = [COLORS[name] for name in ("policy", "lost", "success", "keypoint", "tracked", "muted", "baseline", "ink")]


def rate(result: GridResult, task: str, row: str, key: str = "success_rate") -> tuple[float, float]:
    """Success rate of a cell over its seeds and its standard error: over seeds, or over states with one seed.

    A state for which there was no plan counts as a failure.

    Returns:
        Shares in 0..1; NaN where nothing was measured.
    """
    found = [m for m in _metrics(result, task, row) if m.get(key) is not None]
    if not found:
        return math.nan, math.nan
    planned = [_planned(m) for m in found]
    rates = np.array([share * m[key] for share, m in zip(planned, found, strict=True)])
    if len(rates) > 1:
        return float(rates.mean()), float(rates.std(ddof=1) / math.sqrt(len(rates)))
    return float(rates[0]), planned[0] * float(found[0].get(key.removesuffix("rate") + "stderr", math.nan))


def training_minutes(result: GridResult, task: str, row: str) -> float:
    """How long the policies of a cell were trained [min], mean over its seeds; NaN where nobody says."""
    found = [m["training_wall_seconds"] / 60 for m in _metrics(result, task, row) if m.get("training_wall_seconds")]
    return float(np.mean(found)) if found else math.nan


def _planned(metrics: dict[str, Any]) -> float:
    """Share of the states for which there was a plan; all where nobody says otherwise."""
    if not (missing := metrics.get("states_without_plan")):
        return 1.0
    states = metrics["episodes"] / metrics["trials"]
    return states / (states + missing)


def _metrics(result: GridResult, task: str, row: str) -> list[dict[str, Any]]:
    return [m for (t, r, _), m in result.metrics.items() if (t, r) == (task, row)]


def success(result: GridResult, task: str, row: RowSpec) -> tuple[float, float]:
    """Success rate of a row's policy, planned again where the row says so, and its standard error, as :func:`rate`."""
    return rate(result, task, row.name, "replanned_success_rate" if row.replan else "success_rate")


def records(experiment: ExperimentSpec, result: GridResult) -> list[dict[str, Any]]:
    """A record for each row and task, the baselines and the paper's number beside it [%]."""
    table = []
    for row in experiment.rows:
        for task in experiment.tasks:
            share, error = success(result, task, row)
            failed = [why for (t, r, _), why in result.failures.items() if (t, r) == (task, row.name)]
            table.append(
                {
                    "row": row.name,
                    "task": task,
                    "success": 100 * share,
                    "stderr": 100 * error,
                    "zero_action": 100 * rate(result, task, row.name, "zero_action_success_rate")[0],
                    "timed_close": 100 * rate(result, task, row.name, "best_timed_close_success_rate")[0],
                    "training_minutes": training_minutes(result, task, row.name),
                    "seeds": len(_metrics(result, task, row.name)),
                    "seeds_failed": len(failed),
                    "paper": experiment.paper.get(row.name, {}).get(task, math.nan),
                    "failed": failed[0] if failed else "",
                }
            )
    return table


def markdown(experiment: ExperimentSpec, protocol_name: str, protocol: Protocol, result: GridResult) -> str:
    """The table with its heading, set-up and what differs from the paper."""
    found = records(experiment, result)
    ran = sorted({f"{m.get('physics', '-')} on {m.get('device', '-')}" for m in result.metrics.values()})
    lines = [
        f"# {experiment.title}",
        "",
        f"{experiment.source}. `scaffoldlab experiment {experiment.name} --protocol {protocol_name}`: "
        f"{protocol.states} unseen states x {protocol.trials} trials, {len(protocol.seeds)} seed(s), at most "
        f"{_minutes(experiment, protocol)} of training, {' and '.join(ran) or 'not run'}. "
        "Success [%] ± standard error; a state without a plan is a failure.",
        "",
        *(_by_row(experiment, found) if len(experiment.rows) > 1 else _by_task(found)),
    ]
    if result.metrics:
        counts = outcomes(experiment, result)
        shares = ", ".join(f"{name} {100 * count / _total(counts):.0f} %" for name, count in counts.items())
        lines += ["", f"Where episodes end, over all cells: {shares}. {PAPER_FAILURES}"]
    # Many artefacts fail for one reason, in folders of their own: the first is enough.
    failures = sorted({r["failed"].rpartition("): ")[2]: r["failed"] for r in reversed(found) if r["failed"]}.values())
    lines += ["", "What differs from the paper:", "", *(f"- {d}" for d in _differences(experiment))]
    if failures:
        lines += ["", "Not measured:", "", *(f"- {why}" for why in failures)]
    return "\n".join(lines) + "\n"


def _differences(experiment: ExperimentSpec) -> list[str]:
    """What differs from the paper's set-up: everywhere, for these tasks, in this experiment."""
    tasks = [load_task(name).task for name in experiment.tasks]
    lengths = _named({task.name: f"{task.episode_steps}" for task in tasks})
    of_tasks = {task.name: task.cpu.settings for task in tasks if task.cpu and task.cpu.settings}
    settings = _named(
        {name: ", ".join(f"`{path}={value:g}`" for path, value in s.items()) for name, s in of_tasks.items()}
    )
    return [
        *COMMON_DIFFERENCES,
        f"on a CPU T = {'; '.join(lengths)} control steps; the paper's is 300",
        *(f"on a CPU {text}" for text in settings),
        *experiment.differences,
    ]


def _minutes(experiment: ExperimentSpec, protocol: Protocol) -> str:
    minutes = {name: protocol.minutes_of(load_task(name).task) for name in experiment.tasks}
    others = _named({name: f", or {m:g}" for name, m in minutes.items() if m != protocol.minutes})
    return f"{protocol.minutes:g} minutes" + "".join(others)


def _named(by_task: dict[str, str]) -> list[str]:
    """Each text once, with the tasks that it holds for."""
    return [
        f"{text} ({', '.join(n for n in by_task if by_task[n] == text)})" for text in dict.fromkeys(by_task.values())
    ]


def _by_row(experiment: ExperimentSpec, found: list[dict[str, Any]]) -> list[str]:
    """A line for each row, a column for each task; in brackets the zero action and the best timed close."""
    lines = [
        "In brackets: the zero action and the best timed close on the same plans.",
        "",
        "| | " + " | ".join(experiment.tasks) + " | mean | paper's mean |",
        "|---" * (len(experiment.tasks) + 3) + "|",
    ]
    for row in experiment.rows:
        cells = [r for r in found if r["row"] == row.name]
        rates = [r["success"] for r in cells if not math.isnan(r["success"])]
        partly = "" if len(rates) == len(cells) else f" ({len(rates)} tasks)"
        mean = f"{np.mean(rates):.0f}{partly}" if rates else "-"
        paper = experiment.paper.get(row.name, {}).get("mean")
        lines.append(f"| {' | '.join([row.name, *map(_cell, cells), mean, '-' if paper is None else f'{paper:g}'])} |")
    return lines


def _by_task(found: list[dict[str, Any]]) -> list[str]:
    """A line for each task of the only row, with the paper's numbers if it has any."""
    columns = ["success", "zero action", "best timed close", "training [min]"]
    columns += ["paper"] if any(not math.isnan(r["paper"]) for r in found) else []
    lines = [f"| task | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for r in found:
        formats = {"zero_action": ".0f", "timed_close": ".0f", "training_minutes": ".1f"}
        formats |= {"paper": "g"} if "paper" in columns else {}
        numbers = ["-" if math.isnan(r[key]) else format(r[key], form) for key, form in formats.items()]
        lines.append(f"| {r['task']} | {_success(r)} | {' | '.join(numbers)} |")
    return lines


def _success(record: dict[str, Any]) -> str:
    if math.isnan(record["success"]):
        return "failed" if record["failed"] else "-"
    made, missing = record["seeds"], record["seeds_failed"]
    partly = f" [{made} of {made + missing} seeds]" if missing else ""
    error = "" if math.isnan(record["stderr"]) else f" ± {record['stderr']:.0f}"
    return f"{record['success']:.0f}{error}{partly}"


def _cell(record: dict[str, Any]) -> str:
    text = _success(record)
    if not math.isnan(record["zero_action"]):
        text += f" ({record['zero_action']:.0f}, {record['timed_close']:.0f})"
    return text if math.isnan(record["paper"]) else f"{text}; paper {record['paper']:g}"


def as_csv(experiment: ExperimentSpec, result: GridResult) -> str:
    """The records as CSV; what was not measured is empty."""
    table, text = records(experiment, result), io.StringIO()
    writer = csv.DictWriter(text, list(table[0]))
    writer.writeheader()
    for record in table:
        plain = {k: "" if isinstance(v, float) and math.isnan(v) else v for k, v in record.items()}
        writer.writerow({k: round(v, 2) if isinstance(v, float) else v for k, v in plain.items()})
    return text.getvalue()


def plot(experiment: ExperimentSpec, result: GridResult) -> bytes:
    """What was measured, as PNG: bars by task and row as in figure 4, or lines over the rows as in figures 7 and 11."""
    measured = {row for _, row, _ in result.metrics}
    shown = [row for row in experiment.rows if row.name in measured]
    tasks, rows = experiment.tasks, [row.name for row in shown]
    rates = np.array([[success(result, task, row) for row in shown] for task in tasks]) * 100  # (tasks, rows, 2)
    with new_figure(3.2, width=max(7.0, 1.1 * len(tasks) + 2)) as (figure, axes):
        if experiment.axis:
            at = [float(name.split()[0]) for name in rows]
            for task, values, color in zip(tasks, rates, SERIES, strict=False):
                axes.errorbar(at, values[:, 0], values[:, 1], color=color, marker="o", capsize=3, label=task)
            axes.set(xlabel=experiment.axis, xticks=at, xticklabels=[name.split()[0] for name in rows])
        else:
            width = 0.8 / len(rows)
            for number, (row, color) in enumerate(zip(rows, SERIES * 4, strict=False)):
                at = np.arange(len(tasks)) + (number - (len(rows) - 1) / 2) * width
                axes.bar(at, rates[:, number, 0], 0.92 * width, yerr=rates[:, number, 1], color=color, label=row)
            axes.set(xticks=range(len(tasks)), xticklabels=[task.replace("_", "\n") for task in tasks])
        axes.grid(axis="y")
        axes.set(ylabel="success [%]", ylim=(0, 103))
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3)
        stream = io.BytesIO()
        figure.savefig(stream, format="png", dpi=150, bbox_inches="tight")
    return stream.getvalue()


def outcomes(experiment: ExperimentSpec, result: GridResult) -> dict[str, int]:
    """How many episodes ended in each way, over all cells; those without a plan are episodes too."""
    counts: dict[str, int] = dict.fromkeys((*OUTCOMES, NO_PLAN), 0)
    for (_, row, _), metrics in result.metrics.items():
        policy = REPLANNED if experiment.row(row).replan else "deterministic"
        for outcome, count in metrics["policies"][policy]["outcomes"].items():
            counts[outcome] += count
        counts[NO_PLAN] += (metrics.get("states_without_plan") or 0) * metrics.get("trials", 1)
    return counts


def sankey(experiment: ExperimentSpec, result: GridResult) -> str:
    """Where episodes end, over all cells, as in figure 6: an HTML page that loads nothing from elsewhere."""
    import plotly.graph_objects as go

    done, wrong, lost, tracked, none = (counts := outcomes(experiment, result)).values()
    total = _total(counts)

    def label(name: str, count: int) -> str:
        return f"{name}: {100 * count / total:.0f} %"

    kept = done + tracked
    nodes = [
        label("episodes", total),
        label("keypoints right", kept + lost),
        label("keypoint wrong", wrong),
        label("plan kept or success", kept),
        label("tracking lost", lost),
        label("success", done),
        label("tracked but failed", tracked),
        label(NO_PLAN, none),
    ]
    links = [
        (0, 1, kept + lost),
        (0, 2, wrong),
        (1, 3, kept),
        (1, 4, lost),
        (3, 5, done),
        (3, 6, tracked),
        (0, 7, none),
    ]
    tones = [COLORS[n] for n in ("policy", "policy", "keypoint", "policy", "lost", "success", "tracked", "muted")]
    source, target, value = zip(*links, strict=True)
    figure = go.Figure(
        go.Sankey(
            node={"label": nodes, "color": tones, "pad": 24, "thickness": 18},
            link={"source": source, "target": target, "value": value, "color": [f"{tones[t]}66" for t in target]},
        )
    )
    caption = PAPER_FAILURES.replace("; ", ";<br>")
    figure.update_layout(
        title={"text": f"{experiment.title}: {total} episodes", "subtitle": {"text": caption}},
        margin={"t": 110, "b": 30}, font_size=14, width=1100, height=440,
    )  # fmt: skip
    return figure.to_html(include_plotlyjs=True, full_html=True)


def _total(counts: dict[str, int]) -> int:
    return max(1, sum(counts.values()))


def write_tables(
    experiment: ExperimentSpec, protocol_name: str, protocol: Protocol, result: GridResult, folder: Path
) -> Path:
    """Writes ``table.md``, ``table.csv``, ``plot.png`` and ``failures.html``; returns the table's path."""
    path = folder / "table.md"
    write_atomic(path, markdown(experiment, protocol_name, protocol, result))
    write_atomic(folder / "table.csv", as_csv(experiment, result))
    if result.metrics:
        write_atomic(folder / "plot.png", plot(experiment, result))
        write_atomic(folder / "failures.html", sankey(experiment, result))
    return path
