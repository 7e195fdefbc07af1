"""The vlm planner: a vision-language model points at the keypoints, then writes how they and the hand move."""

import json
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from jinja2 import Environment

from scaffoldlab.camera import RgbdImage
from scaffoldlab.errors import ScaffoldError
from scaffoldlab.planners.base import Check, Examples, OraclePart, Planner, PlanRequest, Waypoints, medoid
from scaffoldlab.planners.endpoint import (
    Call,
    ChatEndpoint,
    EndpointError,
    OpenAIEndpoint,
    QueryKind,
    Reply,
    image_url,
)
from scaffoldlab.planners.ledger import Ledger, LedgerError
from scaffoldlab.planners.meter import BudgetError, Meter
from scaffoldlab.planners.points import point_convention
from scaffoldlab.planners.reply import (
    RESERVED_NAMES,
    RejectedReply,
    read_names,
    read_points,
    read_points_of,
    read_trajectory,
)
from scaffoldlab.planners.settings import VlmSettings
from scaffoldlab.templates import templates

log = logging.getLogger(__name__)

type Located = tuple[tuple[np.ndarray, np.ndarray], list[Reply]]
"""Pixels of the keypoints, shape (K, 2), their points in the env frame [m], shape (K, 3), and the replies."""


class VlmPlanner(Planner):
    """Plans with a vision-language model (Scaffolds, section 3.2); safe to call from several threads.

    A plan takes two queries: the pixels of the keypoints, lifted through the depth image, then the waypoints. A
    reply that cannot be used is sent back with the reasons. An oracle may do one of the two (section 4.2).

    Args:
        endpoint: Who answers.
        settings: Parameters, retries, prices and caps.
        ledger: Records every call. A recorded reply is used again, but a query whose last repair was rejected is asked
            anew. None keeps no record.
        name: ``"vlm"``, or ``"replay"`` when a ledger answers.
        check: Reasons why waypoints are no plan, as the model wrote them; they count as reasons against the reply.
        examples: Waypoints to show in the trajectory prompt, always the same for the same request.
        true_keypoints: The model is told where the keypoints are instead of being asked, and sees no picture.
        trajectories: Writes the waypoints in the model's place, from the keypoints that the model has located.
    """

    def __init__(
        self,
        endpoint: ChatEndpoint,
        settings: VlmSettings,
        *,
        ledger: Ledger | None = None,
        name: str = "vlm",
        check: Check | None = None,
        examples: Examples | None = None,
        true_keypoints: bool = False,
        trajectories: Planner | None = None,
    ) -> None:
        if true_keypoints and trajectories:
            raise ScaffoldError("vlm planner: with true keypoints and given trajectories nothing is left to ask.")
        self.name, self.needs_image = name, not true_keypoints
        self._trajectories = trajectories
        self.points, self.batch = point_convention(settings.points, endpoint.model), settings.batch
        if self.points.xml and self.batch > 1:
            raise ScaffoldError(
                f"vlm planner: batch is {self.batch}, but points of the {self.points.name} convention do not say of "
                "which picture they are; allowed: 1."
            )
        self._model, self._settings, self._ledger = endpoint.model, settings, ledger
        self._check, self._examples = check, examples
        self._meter = Meter(endpoint, ledger, settings)
        self._located: dict[tuple[str, int], Located] = {}

    def prepare(self, requests: Sequence[PlanRequest]) -> None:
        """Asks for the keypoints of several requests of a task at once, in one query with a picture of each.

        What it does not learn here, :meth:`plan` asks for by itself.

        Raises:
            LedgerError: A call could not be recorded.
        """
        size = self._settings.image_size
        seen = [(r, r.image, sent_image(r.image.rgb, size)) for r in requests if r.image is not None]
        if not self.needs_image or len(seen) < 2 or len({sent.shape for *_, sent in seen}) > 1:
            return
        for sample in range(self._settings.votes):
            try:
                located = self._point(seen, sample)
            except LedgerError:
                raise
            except ScaffoldError as error:
                log.info("%s", error)
            else:
                self._located |= {(url, sample): answer for url, answer in located.items()}

    def plan(self, request: PlanRequest) -> Waypoints:
        """Makes the waypoints of one plan; of several votes the one that is nearest to all.

        Raises:
            ScaffoldError: There is no image, the endpoint does not answer, the budget is used up, or no reply was
                usable; every call that was made is in the ledger.
        """
        if reserved := set(request.keypoint_names) & set(RESERVED_NAMES):
            raise ScaffoldError(f"{request.task}: no keypoint may be called {' or '.join(sorted(reserved))}.")
        votes: list[tuple[Waypoints, list[Reply]]] = []
        errors: list[ScaffoldError] = []
        for sample in range(self._settings.votes):
            try:
                votes.append(self._sample(request, sample))
            except LedgerError:
                raise
            except ScaffoldError as error:
                errors.append(error)
                if isinstance(error, BudgetError | EndpointError):
                    break  # the next answer would not come either
        if not votes:
            raise errors[0]
        chosen = medoid([waypoints for waypoints, _ in votes])
        source = self._source([replies for _, replies in votes])
        if self._settings.votes > 1:
            source["votes"] = {"asked": self._settings.votes, "valid": len(votes), "chosen": chosen}
        return replace(votes[chosen][0], source=source)

    def keypoint_names(self, task: str, image: RgbdImage) -> tuple[str, ...]:
        """Asks for the keypoints that a task needs (Scaffolds, appendix H.1).

        Args:
            task: Completes "a robot hand has to ...", e.g. ``"put the apple on the cutting board"``.
            image: Picture of the scene.
        """
        sent = sent_image(image.rgb, self._settings.image_size)
        call = self._call("elicitation", task, 0, 0, prompt("elicitation", task=task), [sent])
        return self._query(call, read_names)[0]

    def locate(self, request: PlanRequest) -> np.ndarray:
        """Where the model sees the keypoints of a request, in the env frame [m], shape (K, 3).

        Raises:
            ScaffoldError: There is no image, or no usable answer.
        """
        return self._locate(request, 0)[0][1]

    def _sample(self, request: PlanRequest, sample: int) -> tuple[Waypoints, list[Reply]]:
        """One answer of the model, without provenance, and its replies."""
        if not self.needs_image:
            waypoints, replies = self._move(request, request.keypoints_e, sample)
            return replace(waypoints, keypoints=request.keypoints), replies
        (pixels, located_e), replies = self._locate(request, sample)
        waypoints = self._given(request, located_e)
        if waypoints is None:
            waypoints, trajectory = self._move(request, located_e, sample)
            replies = [*replies, *trajectory]
        return replace(waypoints, pixels=pixels), replies

    def _locate(self, request: PlanRequest, sample: int) -> Located:
        """Where the model sees the keypoints, as it was learned together with others or as it says now."""
        if request.image is None:
            raise ScaffoldError(f"{request.task}, plan {request.index}: the {self.name} planner needs an image.")
        sent = sent_image(request.image.rgb, self._settings.image_size)
        url = image_url(sent)
        return self._located.get((url, sample)) or self._point([(request, request.image, sent)], sample)[url]

    def _point(self, seen: Sequence[tuple[PlanRequest, RgbdImage, np.ndarray]], sample: int) -> dict[str, Located]:
        """Asks for the keypoints of a task in one or several pictures of one size; at least one answer, by URL."""
        (request, _, sent), *_ = seen
        names, count, (height, width) = request.keypoint_names, len(seen), sent.shape[:2]

        def read(text: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
            located, reasons = {}, []
            answers = (
                [read_points(text, names, self.points, width, height)]
                if count == 1
                else read_points_of(count, text, names, self.points, width, height)
            )
            for number, ((request, image, sent), answer) in enumerate(zip(seen, answers, strict=True), 1):
                try:
                    if isinstance(answer, RejectedReply):
                        raise answer
                    located[image_url(sent)] = self._lifted(request, image, answer)
                except RejectedReply as error:
                    reasons += [f"Image {number}: {r}" if count > 1 else r for r in error.reasons]
            if not located:
                raise RejectedReply(reasons)
            return located

        text = prompt(
            "pointing",
            instruction=request.instruction,
            names=names,
            points=self.points,
            width=width,
            height=height,
            images=count,
        )
        call = self._call("keypoints", request.task, request.seed, request.index, text, [sent for *_, sent in seen])
        located, replies = self._query(replace(call, sample=sample), read)
        return {url: (points, [reply.share(len(located)) for reply in replies]) for url, points in located.items()}

    def _lifted(self, request: PlanRequest, image: RgbdImage, fractions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pixels [px], shape (K, 2), and points in the env frame [m], shape (K, 3), of fractions of a picture."""
        pixels = fractions * (image.camera.width, image.camera.height)
        located_e, reasons = [], []
        for name, pixel in zip(request.keypoint_names, pixels, strict=True):
            try:
                located_e.append(image.lift(pixel[None])[0])
            except ScaffoldError as error:
                reasons.append(f"{json.dumps(name)} cannot be located in depth: {error}")
        if reasons:
            raise RejectedReply(reasons)
        given = self._given(request, np.stack(located_e))
        if given is not None:  # where the model points decides whether they are a plan
            self._judge(request, given)
        return pixels, np.stack(located_e)

    def _move(self, request: PlanRequest, located_e: np.ndarray, sample: int) -> tuple[Waypoints, list[Reply]]:
        """Waypoints of the keypoints and the hand, without provenance."""
        names, origin_e, turning = request.keypoint_names, located_e[0], self._settings.orientation

        def read(text: str) -> Waypoints:
            keypoints, hand = read_trajectory(text, names, request.waypoint_count, orientation=turning)
            waypoints = Waypoints(
                keypoints_e=origin_e + keypoints,
                hand_e=origin_e + hand[:, :3],
                located_e=located_e,
                wrist_rpy=np.radians(hand[:, 3:]) if turning else None,
            )
            self._judge(request, waypoints)
            waypoints.keypoints_e[0], waypoints.hand_e[0] = located_e, request.hand_e  # the model saw them rounded
            if waypoints.wrist_rpy is not None:
                waypoints.wrist_rpy[0] = request.hand_rpy
            return waypoints

        examples = self._examples(request) if self._examples else ()
        rpy = request.hand_rpy[None] if turning else None
        (start,) = relative(names, located_e[None], request.hand_e[None], rpy)
        text = prompt(
            "trajectory",
            names=(*names, "hand"),
            activity=request.activity,
            steps=request.steps,
            count=request.waypoint_count,
            start=start,
            examples=[
                relative(names, e.keypoints_e, e.hand_e, _orientation(e, request) if turning else None)
                for e in examples
            ],
            orientation=turning,
            feedback=request.feedback,
        )
        call = self._call("trajectory", request.task, request.seed, request.index, text)
        return self._query(replace(call, sample=sample), read)

    def _given(self, request: PlanRequest, located_e: np.ndarray) -> Waypoints | None:
        """Waypoints that are given from where the model has located the keypoints; None if the model writes them."""
        return self._trajectories.plan(replace(request, keypoints_e=located_e)) if self._trajectories else None

    def _judge(self, request: PlanRequest, waypoints: Waypoints) -> None:
        """Rejects the reply that waypoints come from where they are no plan."""
        if reasons := self._check(request, waypoints) if self._check else []:
            raise RejectedReply(reasons)

    def _call(
        self, kind: QueryKind, task: str, seed: int, index: int, text: str, images: Sequence[np.ndarray] = ()
    ) -> Call:
        urls = [image_url(image) for image in images]
        pictures = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
        settings = self._settings
        return Call(
            kind=kind,
            task=task,
            seed=seed,
            index=index,
            model=self._model,
            parameters=settings.trajectory_parameters if kind == "trajectory" else settings.keypoint_parameters,
            messages=({"role": "user", "content": [*pictures, {"type": "text", "text": text}] if urls else text},),
            images=dict(zip(urls, images, strict=True)),
            points=self.points.name if kind == "keypoints" else None,
        )

    def _query[T](self, call: Call, read: Callable[[str], T]) -> tuple[T, list[Reply]]:
        """Asks until a reply can be read, at most once more per repair; the answer and all its replies."""
        replies: list[Reply] = []
        while True:
            reply = self._meter.ask(call)
            replies.append(reply)
            try:
                answer = read(reply.text)
            except RejectedReply as error:
                cut = ["It was cut off at the token limit: be brief."] if reply.finish == "length" else []
                reasons = [*error.reasons, *cut]
            except BaseException:  # a reply is paid for, so it is recorded whatever happens
                self._meter.settle(call, reply, ["The reply was not judged: planning stopped."])
                raise
            else:
                self._meter.settle(call, reply, ())
                return answer, replies
            self._meter.settle(call, reply, reasons)
            if call.turn >= self._settings.repairs:
                raise self._unusable(call, replies, reasons)
            said = {"role": "assistant", "content": reply.text or "(no answer)"}
            asked = {"role": "user", "content": prompt("repair", reasons=reasons)}
            call = replace(call, turn=call.turn + 1, messages=(*call.messages, said, asked), repairs=reply.id)

    def _unusable(self, call: Call, replies: list[Reply], reasons: list[str]) -> ScaffoldError:
        ids = ", ".join(reply.id for reply in replies if reply.id)
        where = f" Prompts and replies: {self._ledger.path}, ids {ids}." if self._ledger else ""
        return ScaffoldError(
            f"{call.task}, plan {call.index}: {call.model} gave no usable answer to the {call.kind} query in "
            f"{len(replies)} replies. The last one: {' '.join(reasons)}{where} "
            "Run again to ask anew, or use another model."
        )

    def _source(self, votes: list[list[Reply]]) -> dict[str, Any]:
        replies = [reply for vote in votes for reply in vote]
        costs = [reply.cost_usd for reply in replies]
        oracle: OraclePart | None = "trajectory" if self._trajectories else None if self.needs_image else "keypoints"
        return (
            {
                "planner": self.name,
                "model": self._model,
                "points": self.points.name,
                "calls": [reply.id for reply in replies],
                "repairs": len(replies) - (1 if oracle else 2) * len(votes),
                "retries": sum(reply.attempt for reply in replies),
                "tokens_in": sum(reply.tokens_in or 0 for reply in replies),
                "tokens_out": sum(reply.tokens_out or 0 for reply in replies),
                "cost_usd": None if None in costs else round(sum(cost or 0.0 for cost in costs), 9),
            }
            | ({"oracle": oracle} if oracle else {})
            | ({} if all(r.exact for r in replies) else {"prompt_differs": True})
        )


def vlm_planner(
    settings: VlmSettings,
    *,
    ledger: str | os.PathLike[str] | None = None,
    check: Check | None = None,
    examples: Examples | None = None,
    true_keypoints: bool = False,
    trajectories: Planner | None = None,
) -> VlmPlanner:
    """A planner that asks the endpoint of the settings or of the environment.

    Args:
        settings: Endpoint, model, parameters, retries, prices and caps.
        ledger: File that records every call. If it exists it is continued: recorded replies are used again, but a
            query whose last repair was rejected is asked anew.
        check: Reasons why waypoints are no plan.
        examples: Waypoints to show in the trajectory prompt.
        true_keypoints: As for :class:`VlmPlanner`.
        trajectories: As for :class:`VlmPlanner`.

    Raises:
        ScaffoldError: There is no endpoint or model, or the ledger cannot be opened.
    """
    endpoint = OpenAIEndpoint(settings.base_url, settings.model, timeout_s=settings.timeout_s)
    book = Ledger.open(ledger) if ledger is not None else None
    return VlmPlanner(
        endpoint,
        settings,
        ledger=book,
        check=check,
        examples=examples,
        true_keypoints=true_keypoints,
        trajectories=trajectories,
    )


def prompt(name: str, **values: Any) -> str:
    """Renders one of the prompts: elicitation, pointing, trajectory or repair."""
    usual = {"orientation": False, "feedback": "", "images": 1}
    return _prompts().get_template(f"{name}.j2").render(usual | values).strip()


@cache
def _prompts() -> Environment:
    environment = templates("scaffoldlab.planners", "prompts", html=False)
    environment.filters["json"] = lambda value: json.dumps(value, ensure_ascii=False)
    environment.filters["position"] = lambda pose: ", ".join(f"{pose[axis]:.2f}" for axis in "xyz")
    environment.filters["angles"] = lambda pose: ", ".join(f"{pose[axis]:.0f}" for axis in ("roll", "pitch", "yaw"))
    return environment


def relative(
    names: tuple[str, ...], keypoints_e: np.ndarray, hand_e: np.ndarray, wrist_rpy: np.ndarray | None = None
) -> list[dict[str, Any]]:
    """Waypoints as the prompts write them: relative to where the first keypoint starts, rounded to 1 cm and 1 deg.

    Args:
        names: The K keypoint names.
        keypoints_e: Keypoint waypoints [m], shape (n, K, 3).
        hand_e: Hand waypoints [m], shape (n, 3).
        wrist_rpy: Roll, pitch, yaw of the hand [rad], shape (n, 3), or None to leave them out.
    """
    positions = np.concatenate((keypoints_e, hand_e[:, None]), 1) - keypoints_e[0, 0]
    positions = np.round(positions, 2) + 0.0  # no -0.0
    waypoints: list[dict[str, Any]] = [
        {"waypoint_num": i} | {n: dict(zip("xyz", p, strict=True)) for n, p in zip((*names, "hand"), row, strict=True)}
        for i, row in enumerate(positions.tolist())
    ]
    if wrist_rpy is not None:
        degrees = np.round(np.degrees(wrist_rpy)) + 0.0
        for waypoint, angles in zip(waypoints, degrees.tolist(), strict=True):
            waypoint["hand"] |= dict(zip(("roll", "pitch", "yaw"), angles, strict=True))
    return waypoints


def _orientation(example: Waypoints, request: PlanRequest) -> np.ndarray:
    """How an example holds the hand: as it says, else as the hand is held now, shape (n, 3)."""
    return np.broadcast_to(request.hand_rpy if example.wrist_rpy is None else example.wrist_rpy, example.hand_e.shape)


def sent_image(rgb: np.ndarray, size: int) -> np.ndarray:
    """The picture scaled so that its longer side is the size [px], shape (height, width, 3), uint8."""
    from PIL import Image

    height, width = rgb.shape[:2]
    scale = size / max(height, width)
    if scale == 1:
        return np.ascontiguousarray(rgb)
    sides = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(rgb).resize(sides, Image.Resampling.LANCZOS))
