"""The plots of a report: one style, as PNG for a paper and as SVG that follows the page's light or dark scheme."""

import contextlib
import io
import re
from collections.abc import Generator, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from scaffoldlab.evaluation.episodes import OUTCOMES, TIMED_CLOSES, ZERO_ACTION, Episodes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Light and dark shade of each colour. Series follow Okabe and Ito (2008): they stay apart for colour-blind readers.
THEME = {
    "page": ("#fafaf8", "#0f1317"),
    "card": ("#fffffe", "#171c22"),
    "ink": ("#14181d", "#edf0f3"),
    "muted": ("#5c6773", "#9ba8b5"),
    "line": ("#dfe3e8", "#2c353e"),
    "policy": ("#0072b2", "#56b4e9"),
    "baseline": ("#b9c2cb", "#4a5662"),
    "success": ("#009e73", "#2fc598"),
    "keypoint": ("#cc79a7", "#dc96bd"),
    "lost": ("#d55e00", "#f0833e"),
    "tracked": ("#e69f00", "#f2bd4e"),
}
COLORS = {name: light for name, (light, _) in THEME.items()}
OUTCOME_COLORS = dict(zip(OUTCOMES, ("success", "keypoint", "lost", "tracked"), strict=True))
"""Colour name of each outcome."""

_WIDTH = 5.0  # [in]; about a phone's width at a 10 pt font
_ON_COLOR = "#13171c"  # text on a series colour, dark in both schemes
_STYLE = {
    "font.size": 10,
    "text.color": COLORS["ink"],
    "text.parse_math": False,
    "axes.edgecolor": COLORS["line"],
    "axes.labelcolor": COLORS["muted"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": COLORS["line"],
    "grid.linewidth": 0.8,
    "xtick.color": COLORS["line"],
    "ytick.color": COLORS["line"],
    "xtick.labelcolor": COLORS["muted"],
    "ytick.labelcolor": COLORS["muted"],
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 2.0,
    "lines.solid_capstyle": "round",
}


def success_bars(episodes: Sequence[Episodes]) -> "Figure":
    """Success rate and standard error of each policy; the best timed close is darker than the other baselines."""
    with new_figure(0.36 * len(episodes) + 0.95) as (figure, axes):
        best = best_timed_close(episodes)
        for row, record in enumerate(episodes):
            rate, error = 100 * record.success_rate, 100 * record.success_stderr
            color = "muted" if record is best else "baseline" if is_baseline(record) else "policy"
            bars = [[min(error, rate)], [min(error, 100 - rate)]]
            axes.barh(row, rate, height=0.66, color=COLORS[color])
            if error:
                axes.errorbar(rate, row, xerr=bars, color=COLORS["ink"], linewidth=1.3, capsize=3)
            text = f"{rate:.1f} ± {error:.1f} %"
            axes.text(1.03, row, text, va="center_baseline", transform=axes.get_yaxis_transform())
        _rows(axes, episodes, bold=[e is best or not is_baseline(e) for e in episodes])
        axes.set(xlabel="success rate [%] ± standard error")
    return figure


def outcome_bars(episodes: Sequence[Episodes]) -> "Figure":
    """How the episodes of each policy ended, stacked, with the counts."""
    with new_figure(0.36 * len(episodes) + 0.95) as (figure, axes):
        counts = np.stack([np.bincount(e.outcome, minlength=len(OUTCOMES)) for e in episodes])
        share = 100 * counts / counts.sum(1, keepdims=True)
        left = share.cumsum(1) - share
        for k, (name, color) in enumerate(OUTCOME_COLORS.items()):
            axes.barh(
                range(len(episodes)), share[:, k], left=left[:, k], height=0.66, color=COLORS[color], label=name,
                edgecolor=COLORS["card"], linewidth=0.8,
            )  # fmt: skip
        for row, k in np.argwhere(share > 6):
            middle = left[row, k] + share[row, k] / 2
            axes.text(middle, row, str(counts[row, k]), ha="center", va="center_baseline", color=_ON_COLOR, size=9)
        _rows(axes, episodes)
        axes.set(xlabel="episodes [%], with counts")
        figure.legend(loc="outside upper center", ncols=4, handlelength=0.9, handletextpad=0.4, columnspacing=1.1)
    return figure


def tracking_error(episodes: Episodes) -> "Figure":
    """Median and quartiles of the tracking error at each step, successes apart from failures, and the threshold."""
    with new_figure(3.6) as (figure, axes):
        steps = np.arange(episodes.error.shape[1])
        for name, color, rows, dashes in (
            ("successes", "success", episodes.success, "-"),
            ("failures", "lost", ~episodes.success, (0, (4, 1.5))),
        ):
            if rows.any():
                error = 100 * episodes.error[rows]
                known = np.isfinite(error).any(0)
                low, median, high = np.nanpercentile(error[:, known], (25, 50, 75), axis=0)
                axes.fill_between(steps[known], low, high, color=COLORS[color], alpha=0.2, linewidth=0)
                axes.plot(steps[known], median, color=COLORS[color], linestyle=dashes, label=f"{name} ({rows.sum()})")
        limit = 100 * episodes.threshold
        axes.axhline(limit, color=COLORS["ink"], linewidth=1.1, linestyle=(0, (1, 2)))
        text = f"lost above {limit:g} cm"
        axes.annotate(text, (0, limit), (4, 3), textcoords="offset points", size=9, color=COLORS["muted"])
        axes.set(xlabel="control step", ylabel="tracking error [cm]", xlim=(0, steps[-1]))
        axes.set_ylim(0, np.clip(axes.get_ylim()[1], 1.25 * limit, 4 * limit))  # what flies away would hide the rest
        axes.grid(axis="y")
        figure.legend(loc="outside upper left", ncols=2)
    return figure


def training_curve(training: Sequence[dict[str, Any]]) -> "Figure":
    """Success and tracking error over the env steps of the training.

    Args:
        training: Rows as in :func:`~scaffoldlab.evaluation.report.write_report`; a value may be missing or None.
    """
    with new_figure(3.6, rows=(2, 1)) as (figure, (above, below)):
        column = {
            key: np.array([np.nan if row.get(key) is None else row[key] for row in training], float)
            for key in (
                "env_steps", "train_success", "eval_success", "eval_sampled_success", "tracking_error_m", "delta_m",
            )
        }  # fmt: skip
        steps, end = column["env_steps"], float(np.nanmax(column["env_steps"]))
        unit, name = (1e6, "millions") if end >= 1e6 else (1e3, "thousands")

        def draw(axes: "Axes", key: str, label: str, color: str, **style: Any) -> None:
            known = np.isfinite(column[key])
            if known.any():
                x, y = steps[known] / unit, 100 * column[key][known]
                axes.plot(x, y, color=COLORS[color], label=label, clip_on=False, **style)

        dots = {"marker": "o", "markersize": 3.5}  # few and far between
        draw(above, "train_success", "training episodes", "baseline", linewidth=1.5)
        draw(above, "eval_sampled_success", "sampled", "policy", linewidth=1.3, linestyle=(0, (4, 1.5)), **dots)
        draw(above, "eval_success", "deterministic", "policy", **dots)
        draw(below, "delta_m", "tolerated", "ink", linewidth=1.1, linestyle=(0, (1, 2)))
        draw(below, "tracking_error_m", "tracking error", "lost", linewidth=1.5)
        above.set(ylabel="success [%]", ylim=(0, 103), xlim=(0, end / unit))
        below.set(ylabel="error [cm]", xlabel=f"env steps [{name}]")
        below.set_ylim(bottom=0)
        for axes in (above, below):
            axes.grid(axis="y")
            if axes.lines:
                axes.legend(loc="lower center", bbox_to_anchor=(0.5, 0.97), ncols=3, handlelength=1.6, columnspacing=1)
    return figure


def is_baseline(record: Episodes) -> bool:
    """Whether nothing was learned: the zero action and the timed closes."""
    return record.policy in (ZERO_ACTION, *TIMED_CLOSES)


def best_timed_close(episodes: Sequence[Episodes]) -> Episodes | None:
    """The timed close of the highest success rate, the baseline to beat."""
    timed = [e for e in episodes if e.policy in TIMED_CLOSES]
    return max(timed, key=lambda e: e.success_rate, default=None)


def png(figure: "Figure") -> bytes:
    """The figure on white, 200 dots per inch."""
    buffer = io.BytesIO()
    with _style():
        figure.savefig(buffer, format="png", dpi=200)
    return buffer.getvalue()


def svg(figure: "Figure", *, label: str) -> str:
    """An ``<svg>`` element to stand in a page: real text, colours as CSS variables of :data:`THEME`, no address.

    Args:
        figure: Figure of this module.
        label: What the figure shows, for readers who do not see it.
    """
    buffer = io.StringIO()
    with _style({"svg.fonttype": "none", "svg.hashsalt": label}):
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = re.sub(r".*?<svg[^>]*(viewBox=\"[^\"]*\")[^>]*>", r"<svg \1>", buffer.getvalue(), count=1, flags=re.DOTALL)
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)  # it would hold for the whole page
    text = re.sub(r' id="[\w.]+_\d+"', "", text)  # equal in every figure
    for name, color in COLORS.items():
        text = text.replace(color, f"var(--{name})")
    return text.replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1)


def _rows(axes: "Axes", episodes: Sequence[Episodes], bold: Sequence[bool] = ()) -> None:
    """One named row for each policy, the first on top, over 0 to 100 %."""
    axes.set_yticks(range(len(episodes)), [e.policy for e in episodes], color=COLORS["ink"])
    for label, heavy in zip(axes.get_yticklabels(), bold, strict=False):
        label.set_fontweight("bold" if heavy else "normal")
    axes.tick_params(axis="y", length=0)
    axes.set(xlim=(0, 100), ylim=(len(episodes) - 0.5, -0.5))
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")


@contextlib.contextmanager
def new_figure(
    height: float, *, width: float = _WIDTH, rows: tuple[int, ...] = (1,)
) -> "Generator[tuple[Figure, Any]]":
    """A figure of a size [in] and its axes, in this module's style; no pyplot, so that no window system is asked."""
    from matplotlib.figure import Figure

    with _style():
        figure = Figure((width, height), layout="constrained")
        axes = figure.subplots(len(rows), sharex=True, height_ratios=rows)
        yield figure, axes


def _style(more: dict[str, Any] | None = None) -> contextlib.AbstractContextManager[None]:
    import matplotlib

    return matplotlib.rc_context({**_STYLE, **(more or {})})  # pyright: ignore[reportArgumentType]
