"""What can be set of the vlm planner: plain data, without the key."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from scaffoldlab.errors import ScaffoldError
from scaffoldlab.planners.points import point_convention


@dataclass(frozen=True, kw_only=True)
class VlmSettings:
    """Settings of the vlm planner.

    Attributes:
        base_url: Endpoint, e.g. ``http://localhost:8000/v1``; None takes it from the environment.
        model: Model as the endpoint names it; None takes it from the environment.
        points: Name of the point convention; None guesses it from the model's name.
        keypoint_parameters: Further keys of the keypoint requests (Scaffolds, appendix B: temperature 0.5).
        trajectory_parameters: Further keys of the trajectory request, e.g. a thinking budget in the endpoint's form.
        image_size: Longer side of the image that is sent [px] (appendix B: 800).
        timeout_s: How long to wait for the endpoint to send something [s].
        concurrency: Most requests at the same time.
        retries: Further attempts after a status of 408, 409, 429 or 5xx, a time-out or a lost connection.
        backoff_s: Wait before the first of them [s]; it doubles with each.
        max_wait_s: Longest wait [s]. An endpoint that asks for a longer one is given up.
        repairs: Times that a rejected reply is sent back with the reasons.
        orientation: The model also says how the hand is turned at each waypoint (beyond the paper).
        batch: Pictures whose keypoints one request asks for at most (beyond the paper).
        votes: Answers asked for each plan; the one nearest to all others is taken (beyond the paper).
        price_in_usd: Price of a million prompt tokens [USD], None if unknown.
        price_out_usd: Price of a million answer tokens [USD], None if unknown.
        token_cap: Tokens in and out after which no call is made, those of the ledger included.
        cost_cap_usd: The same in money [USD]; needs both prices.
    """

    base_url: str | None = None
    model: str | None = None
    points: str | None = None
    keypoint_parameters: Mapping[str, Any] = field(default_factory=lambda: {"temperature": 0.5})
    trajectory_parameters: Mapping[str, Any] = field(default_factory=dict)
    image_size: int = 800
    timeout_s: float = 120.0
    concurrency: int = 4
    retries: int = 5
    backoff_s: float = 1.0
    max_wait_s: float = 120.0
    repairs: int = 1
    orientation: bool = False
    batch: int = 1
    votes: int = 1
    price_in_usd: float | None = None
    price_out_usd: float | None = None
    token_cap: int | None = None
    cost_cap_usd: float | None = None

    def __post_init__(self) -> None:
        point_convention(self.points, "")
        least_of = {"image_size": 16, "timeout_s": 0, "retries": 0, "repairs": 0}
        least_of |= {"concurrency": 1, "batch": 1, "votes": 1}
        for name, least in least_of.items():
            if not getattr(self, name) >= least:
                raise ScaffoldError(f"vlm planner: {name} is {getattr(self, name)}; allowed: {least} or more.")
        if self.cost_cap_usd is not None and None in (self.price_in_usd, self.price_out_usd):
            raise ScaffoldError(
                f"vlm planner: cost_cap_usd is {self.cost_cap_usd}, but the price of a token is unknown. "
                "Set price_in_usd and price_out_usd [USD per million tokens], or cap the tokens with token_cap."
            )
        for name in ("keypoint_parameters", "trajectory_parameters"):
            try:
                json.dumps(dict(getattr(self, name)), allow_nan=False)
            except (TypeError, ValueError) as error:
                raise ScaffoldError(f"vlm planner: {name} must be JSON values ({error}).") from None
