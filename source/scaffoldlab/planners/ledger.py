"""The ledger: every call to a model in a JSON lines file, so that none is paid twice and all can be replayed."""

import json
import logging
import os
import threading
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from scaffoldlab.errors import ScaffoldError
from scaffoldlab.planners.endpoint import Call, QueryKind, Reply

log = logging.getLogger(__name__)


class LedgerError(ScaffoldError):
    """A call could not be recorded; whoever went on would pay for what is lost."""


class Record(BaseModel):
    """One attempt at one call: a line of the ledger."""

    model_config = ConfigDict(frozen=True, strict=True)

    id: str
    time: str
    """When it ended, UTC."""
    kind: QueryKind
    task: str
    seed: int
    index: int
    """Number of the plan."""
    turn: int
    """0 for the prompt, 1 for the first repair, ..."""
    sample: int = 0
    """Number of the answer, when several were asked for."""
    attempt: int
    """How often the same request had failed before."""
    repairs: str | None
    """Id of the rejected reply that this call asked to repair."""
    key: str
    """Digest of model, messages and parameters (:attr:`Call.key`)."""
    endpoint: str
    model: str
    points: str | None
    """Point convention of a keypoint query."""
    image_size: int | None
    """Longer side of the image that was sent [px]."""
    parameters: dict[str, Any]
    messages: list[dict[str, Any]]
    """The prompt; an image is ``sha256:`` and the digest of its pixels."""
    reply: str | None
    """None if the attempt failed; the verdict then says why."""
    finish: str | None
    verdict: Literal["ok"] | list[str]
    """Ok, or the reasons why the reply was not used."""
    tokens_in: int | None
    tokens_out: int | None
    cost_usd: float | None
    seconds: float

    def as_reply(self, *, exact: bool = True) -> Reply:
        """The reply as it was recorded."""
        return Reply(
            text=self.reply or "",
            finish=self.finish,
            tokens_in=self.tokens_in,
            tokens_out=self.tokens_out,
            seconds=self.seconds,
            cost_usd=self.cost_usd,
            attempt=self.attempt,
            id=self.id,
            recorded=True,
            exact=exact,
        )


class Ledger:
    """An append-only file of records, for one process at a time.

    A record is written and synced before the next call starts. A process that is killed in the middle of a line
    leaves half of one, which is skipped with a warning, and removed when the ledger is opened for writing.

    Attributes:
        path: The file.
        records: Its records in order.
    """

    def __init__(self, path: Path, records: list[Record]) -> None:
        self.path = path
        self.records: list[Record] = []
        self._lock = threading.Lock()
        self._by_id: dict[str, Record] = {}
        self._by_key: dict[tuple[Any, ...], Record] = {}
        self._by_turn: dict[tuple[Any, ...], Record] = {}
        self._ends: dict[str, Record] = {}
        for record in records:
            self._index(record)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Self:
        """Reads a ledger without changing it.

        Raises:
            ScaffoldError: There is no such file, or a line other than a half-written last one is no record.
        """
        return cls(Path(path), _read(Path(path))[0])

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Opens a ledger to continue it, or begins one.

        Raises:
            ScaffoldError: It cannot be read or written, or is no ledger.
        """
        path = Path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            records, whole = _read(path)
            if whole < path.stat().st_size:
                os.truncate(path, whole)
        except OSError as error:
            raise ScaffoldError(
                f"{path}: the ledger cannot be opened ({error.strerror}). Give a file in a folder you can write to."
            ) from None
        return cls(path, records)

    def append(self, record: Record) -> None:
        """Writes one record through to the disk.

        Raises:
            LedgerError: The disk took it only in part or not at all.
        """
        line = json.dumps(record.model_dump(), allow_nan=False).encode() + b"\n"
        with self._lock:
            try:
                with self.path.open("ab", buffering=0) as file:
                    size = file.tell()
                    if file.write(line) != len(line):
                        os.truncate(self.path, size)
                        raise OSError(None, "the disk is full")
                    os.fsync(file.fileno())
            except OSError as error:
                raise LedgerError(
                    f"{self.path}: a call could not be recorded ({error.strerror}), so planning stops. "
                    "Make room or give another ledger, then run again: what is recorded is not paid twice."
                ) from None
            self._index(record)

    def reusable(self, call: Call, *, repairs: int) -> Record | None:
        """The last reply to the same request of the same plan, unless its query has failed.

        A query has failed when the reply to its last repair was rejected too; what is left is to ask it anew.

        Args:
            call: The request.
            repairs: Times that a rejected reply is sent back.

        Returns:
            A reply that was accepted or led to one that was, or whose repair is still to come; None if there is none.
        """
        with self._lock:
            record = self._by_key.get((call.seed, call.index, call.sample, call.key))
            end = self._ends[record.id] if record else None
            return record if end and (end.verdict == "ok" or end.turn < repairs) else None

    def answer(self, call: Call) -> tuple[Record, bool] | None:
        """The last reply to the same request, else to the same task, seed, plan, query and turn.

        Returns:
            The record, and whether its request was the same; None if there is neither.
        """
        with self._lock:
            if record := self._by_key.get((call.seed, call.index, call.sample, call.key)):
                return record, True
            record = self._by_turn.get((call.task, call.seed, call.index, call.sample, call.kind, call.turn))
            return (record, False) if record else None

    def _index(self, record: Record) -> None:
        self.records.append(record)
        if record.reply is None:
            return
        self._by_id[record.id] = record
        plan = record.seed, record.index, record.sample
        self._by_key[*plan, record.key] = record
        self._by_turn[record.task, *plan, record.kind, record.turn] = record
        # A repair is what the replies that it repaired have come to: asked again, they lead to it.
        reply: Record | None = record
        while reply is not None:
            if self._ends.setdefault(reply.id, record).verdict != "ok":
                self._ends[reply.id] = record
            reply = self._by_id.get(reply.repairs or "")


def _read(path: Path) -> tuple[list[Record], int]:
    """The records of a file, and how many of its bytes are whole lines."""
    try:
        *lines, rest = path.read_bytes().split(b"\n")
    except OSError as error:
        raise ScaffoldError(f"{path}: the ledger cannot be read ({error.strerror}).") from None
    records = []
    for number, line in enumerate(lines, 1):
        try:
            records.append(Record.model_validate_json(line))
        except ValidationError as error:
            detail = error.errors(include_url=False)[0]
            field = ".".join(map(str, detail["loc"])) or "the line"
            raise ScaffoldError(
                f"{path}:{number}: not a record of a planner ledger ({field}: {detail['msg']}). "
                "Give the ledger.jsonl of a run, or remove this line."
            ) from None
    if rest:
        log.warning("%s: the last line is half written and is skipped; its call will be made again.", path)
    return records, sum(len(line) + 1 for line in lines)
