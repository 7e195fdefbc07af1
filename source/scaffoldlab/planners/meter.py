"""Makes the calls of a planner: reuses those in its ledger, pays for the rest within a budget, retries, records."""

import logging
import random
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from scaffoldlab.errors import ScaffoldError
from scaffoldlab.planners.endpoint import Call, ChatEndpoint, EndpointError, Reply
from scaffoldlab.planners.ledger import Ledger, LedgerError, Record
from scaffoldlab.planners.settings import VlmSettings

log = logging.getLogger(__name__)


class BudgetError(ScaffoldError):
    """No further call fits the budget."""


class Meter:
    """Stands between a planner and an endpoint; safe to call from several threads.

    Args:
        endpoint: Who answers.
        ledger: Where calls are recorded and found again; None keeps none.
        settings: Concurrency, retries, prices and caps.
        sleep: Waits before a retry [s].
    """

    def __init__(
        self,
        endpoint: ChatEndpoint,
        ledger: Ledger | None,
        settings: VlmSettings,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._endpoint, self._ledger, self._settings, self._sleep = endpoint, ledger, settings, sleep
        self._lock, self._slots = threading.Lock(), threading.BoundedSemaphore(settings.concurrency)
        self._tokens, self._cost_usd, self._uncounted = 0, 0.0, 0
        self._unrecorded: LedgerError | None = None
        for record in ledger.records if ledger else ():
            if record.reply is not None:
                self._spend(record.tokens_in, record.tokens_out, record.cost_usd)

    def ask(self, call: Call) -> Reply:
        """The recorded reply, which may have been rejected; a new one if there is none or its query has failed.

        Raises:
            BudgetError: A cap is reached.
            EndpointError: Every attempt failed.
            LedgerError: A call before, of any thread, could not be recorded.
        """
        if self._ledger and (record := self._ledger.reusable(call, repairs=self._settings.repairs)):
            return record.as_reply()
        attempt, start = 0, time.monotonic()
        while True:
            sent = start
            try:
                with self._slots:
                    self._check_budget()
                    if self._unrecorded:
                        raise self._unrecorded
                    sent = time.monotonic()
                    reply = self._endpoint.complete(call)
                break
            except EndpointError as error:
                failed = Reply(text="", seconds=round(time.monotonic() - sent, 3), attempt=attempt, id=_new_id())
                self._record(call, failed, None, [str(error)])
                wait = self._wait(error, attempt)
                if wait is None:
                    tried = f" Gave up after {attempt + 1} attempts in {time.monotonic() - start:.0f} s."
                    raise EndpointError(f"{_place(call)}: {error}{tried if error.retryable else ''}") from None
                log.info("%s: %s Next attempt in %.1f s.", _place(call), error, wait)
                self._sleep(wait)
                attempt += 1
        if reply.recorded:
            return reply
        reply = replace(reply, attempt=attempt, id=_new_id(), cost_usd=self._price(reply))
        with self._lock:
            self._spend(reply.tokens_in, reply.tokens_out, reply.cost_usd)
        return reply

    def settle(self, call: Call, reply: Reply, reasons: Sequence[str]) -> None:
        """Records a reply with its verdict: accepted, or the reasons why not."""
        if not reply.recorded:
            self._record(call, reply, reply.text, reasons)

    def _wait(self, error: EndpointError, attempt: int) -> float | None:
        """Seconds before the next attempt: what the endpoint asks for, else exponential; None to give up."""
        if not error.retryable or attempt >= self._settings.retries:
            return None
        if error.retry_after is not None:
            return error.retry_after if error.retry_after <= self._settings.max_wait_s else None
        # Threads that failed together must not come back together.
        return min(self._settings.backoff_s * 2.0**attempt, self._settings.max_wait_s) * random.uniform(0.75, 1.0)

    def _check_budget(self) -> None:
        settings = self._settings
        with self._lock:
            tokens, cost, uncounted = self._tokens, self._cost_usd, self._uncounted
        if settings.token_cap is None and settings.cost_cap_usd is None:
            return
        place = f"{self._ledger.path}: " if self._ledger else "vlm planner: "
        if uncounted:
            raise BudgetError(
                f"{place}{uncounted} replies came without a token count, so the cap cannot be kept. Remove the cap, "
                "or use an endpoint that reports usage."
            )
        if settings.token_cap is not None and tokens >= settings.token_cap:
            used, name = f"{tokens} of {settings.token_cap} tokens", "token_cap"
        elif settings.cost_cap_usd is not None and cost >= settings.cost_cap_usd:
            used, name = f"{cost:.4f} of {settings.cost_cap_usd} USD", "cost_cap_usd"
        else:
            return
        raise BudgetError(
            f"{place}the budget is used up: {used}. Raise {name} and run again: what is recorded is not paid twice."
        )

    def _price(self, reply: Reply) -> float | None:
        price_in, price_out = self._settings.price_in_usd, self._settings.price_out_usd
        if price_in is None or price_out is None or reply.tokens_in is None or reply.tokens_out is None:
            return None
        return round((reply.tokens_in * price_in + reply.tokens_out * price_out) / 1e6, 9)

    def _spend(self, tokens_in: int | None, tokens_out: int | None, cost_usd: float | None) -> None:
        self._tokens += (tokens_in or 0) + (tokens_out or 0)
        self._cost_usd += cost_usd or 0.0
        # A reply that cannot be counted would run past a cap unseen.
        self._uncounted += tokens_in is None or tokens_out is None

    def _record(self, call: Call, reply: Reply, text: str | None, reasons: Sequence[str]) -> None:
        if self._ledger is None:
            return
        record = Record(
            id=reply.id,
            time=datetime.now(UTC).isoformat(timespec="seconds"),
            kind=call.kind,
            task=call.task,
            seed=call.seed,
            index=call.index,
            turn=call.turn,
            sample=call.sample,
            attempt=reply.attempt,
            repairs=call.repairs,
            key=call.key,
            endpoint=str(getattr(self._endpoint, "url", "")),
            model=call.model,
            points=call.points,
            image_size=max((side for image in call.images.values() for side in image.shape[:2]), default=None),
            parameters=dict(call.parameters),
            messages=list(call.messages),
            reply=text,
            finish=reply.finish,
            verdict=list(reasons) or "ok",
            tokens_in=reply.tokens_in,
            tokens_out=reply.tokens_out,
            cost_usd=reply.cost_usd,
            seconds=reply.seconds,
        )
        try:
            self._ledger.append(record)
        except LedgerError as error:
            self._unrecorded = error
            raise


def _place(call: Call) -> str:
    return f"{call.task}, plan {call.index}, {call.kind} query"


def _new_id() -> str:
    return secrets.token_hex(6)
