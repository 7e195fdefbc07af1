"""The replay planner: the vlm planner, answered offline by a ledger."""

import json
import os
from dataclasses import replace

from scaffoldlab.errors import ScaffoldError
from scaffoldlab.planners.base import Check, Examples, Planner
from scaffoldlab.planners.endpoint import Call, EndpointError, Reply
from scaffoldlab.planners.ledger import Ledger, Record
from scaffoldlab.planners.settings import VlmSettings
from scaffoldlab.planners.vlm import VlmPlanner


class RecordedEndpoint:
    """Answers with recorded replies.

    A request is found by its digest and plan. If none is equal, as when another renderer's pixels differ, the last
    reply of the same task, seed, plan, query and turn answers, and the plan's provenance says so.

    Args:
        ledger: The recorded calls.
        model: The model whose calls they are.
    """

    def __init__(self, ledger: Ledger, model: str) -> None:
        self.model = model
        self._ledger = ledger

    def complete(self, call: Call) -> Reply:
        """The recorded reply.

        Raises:
            EndpointError: There is none.
        """
        found = self._ledger.answer(call)
        if found is None:
            plans = sorted({r.index for r in self._ledger.records if (r.task, r.seed) == (call.task, call.seed)})
            has = f"plans {_ranges(plans)} of it" if plans else "no plan of it"
            asked = " ".join(str(call.messages[-1]["content"]).split())
            why = f" It is asked for because the recorded reply is rejected now: {asked}" if call.turn else ""
            raise EndpointError(
                f"{self._ledger.path}: no recorded reply to the {call.kind} query, turn {call.turn}, of plan "
                f"{call.index} of task {call.task!r} with seed {call.seed}; the ledger holds {has}. "
                f"Replay the task, seed and plans that it was recorded with, or use the vlm planner for this one.{why}"
            )
        record, exact = found
        return record.as_reply(exact=exact)


def replay_planner(
    ledger: str | os.PathLike[str],
    *,
    settings: VlmSettings | None = None,
    check: Check | None = None,
    examples: Examples | None = None,
    true_keypoints: bool = False,
    trajectories: Planner | None = None,
) -> VlmPlanner:
    """A planner that repeats the plans of a ledger, without endpoint, key or cost.

    Args:
        ledger: File that the vlm planner wrote.
        settings: Those it ran with; None takes model, parameters and point convention from the ledger.
        check: Reasons why waypoints are no plan, as for the vlm planner.
        examples: Those it ran with; with others the recorded replies answer all the same, marked as inexact.
        true_keypoints: As it ran with.
        trajectories: Those it ran with.

    Raises:
        ScaffoldError: The file is no ledger or has no replies, or its calls went to several models.
    """
    book = Ledger.read(ledger)
    records = [r for r in book.records if r.reply is not None]
    if not records:
        raise ScaffoldError(f"{book.path}: this ledger holds no replies. Give the ledger of a run that made plans.")
    models = sorted({r.model for r in records})
    if settings is None:
        settings = _recorded_settings(book, models)
    return VlmPlanner(
        RecordedEndpoint(book, settings.model or models[-1]),
        settings,
        name="replay",
        check=check,
        examples=examples,
        true_keypoints=true_keypoints,
        trajectories=trajectories,
    )


def _recorded_settings(ledger: Ledger, models: list[str]) -> VlmSettings:
    if len(models) > 1:
        raise ScaffoldError(
            f"{ledger.path}: its calls went to several models ({', '.join(models)}). Give settings with one of them."
        )
    last = {r.kind: r for r in ledger.records}
    repairs, votes = (max(getattr(r, name) for r in ledger.records) for name in ("turn", "sample"))
    settings = VlmSettings(model=models[0], repairs=max(1, repairs), votes=1 + votes)
    if pointing := last.get("keypoints"):
        settings = replace(
            settings,
            points=pointing.points,
            image_size=pointing.image_size or settings.image_size,
            keypoint_parameters=pointing.parameters,
            batch=max(1, *(_pictures(r) for r in ledger.records if r.kind == "keypoints")),
        )
    if trajectory := last.get("trajectory"):
        asked = str(trajectory.messages[0]["content"])
        settings = replace(
            settings, trajectory_parameters=trajectory.parameters, orientation=json.dumps("roll") in asked
        )
    return settings


def _pictures(record: Record) -> int:
    """Pictures of a keypoint query."""
    content = record.messages[0]["content"]
    return sum("image_url" in part for part in content)


def _ranges(numbers: list[int]) -> str:
    return f"{numbers[0]}..{numbers[-1]}" if len(numbers) > 2 else ", ".join(map(str, numbers))
