"""The ledger keeps every call, survives being killed, and tells what needs not be paid again."""

import json
import logging
import threading

import numpy as np
import pytest

from scaffoldlab.errors import ScaffoldError
from scaffoldlab.planners.endpoint import Call, image_url
from scaffoldlab.planners.ledger import Ledger, Record


def record(**changes):
    return Record(
        **{
            "id": "a0",
            "time": "2026-01-01T00:00:00+00:00",
            "kind": "keypoints",
            "task": "move_apple",
            "seed": 0,
            "index": 0,
            "turn": 0,
            "attempt": 0,
            "repairs": None,
            "key": "k0",
            "endpoint": "http://127.0.0.1/v1",
            "model": "m",
            "points": "gemini",
            "image_size": 800,
            "parameters": {"temperature": 0.5},
            "messages": [{"role": "user", "content": "Point to it."}],
            "reply": "[]",
            "finish": "stop",
            "verdict": "ok",
            "tokens_in": 10,
            "tokens_out": 2,
            "cost_usd": None,
            "seconds": 0.5,
            **changes,
        }
    )


def call(**changes):
    values = {"kind": "keypoints", "task": "move_apple", "seed": 0, "index": 0, "model": "m"}
    return Call(**values | {"parameters": {}, "messages": ({"role": "user", "content": "Point."},)} | changes)


def test_records_come_back_as_they_were(tmp_path):
    ledger = Ledger.open(tmp_path / "new" / "ledger.jsonl")
    first, second = record(), record(id="a1", reply="\u2028 \n \x00 ä", verdict=["bad"], cost_usd=0.25)
    ledger.append(first)
    ledger.append(second)
    assert Ledger.read(ledger.path).records == [first, second]
    assert len(ledger.path.read_bytes().splitlines()) == 2


def test_half_written_last_line_is_skipped_then_removed(tmp_path, caplog):
    path = tmp_path / "ledger.jsonl"
    Ledger.open(path).append(record())
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: len(whole) // 2])
    with caplog.at_level(logging.WARNING):
        assert len(Ledger.read(path).records) == 1
    assert "half written" in caplog.text and path.read_bytes() != whole
    ledger = Ledger.open(path)
    ledger.append(record(id="a1"))
    assert [r.id for r in Ledger.read(path).records] == ["a0", "a1"]


@pytest.mark.parametrize("line", [b"{}\n", b"name: apple\n", b'{"id": 3}\n', b"\xff\xfe\n", b"\n"])
def test_file_that_is_no_ledger_is_named_with_its_line_and_left_alone(tmp_path, line):
    path = tmp_path / "ledger.jsonl"
    Ledger.open(path).append(record())
    path.write_bytes(path.read_bytes() + line)
    before = path.read_bytes()
    with pytest.raises(ScaffoldError, match=r"ledger.jsonl:2: not a record of a planner ledger"):
        Ledger.open(path)
    assert path.read_bytes() == before


def test_missing_ledger_and_folder_in_place_of_one_are_errors(tmp_path):
    with pytest.raises(ScaffoldError, match="cannot be read .No such file"):
        Ledger.read(tmp_path / "none.jsonl")
    with pytest.raises(ScaffoldError, match="cannot be"):
        Ledger.open(tmp_path)


def test_full_disk_is_a_clear_error_and_leaves_whole_lines(tmp_path, monkeypatch):
    ledger = Ledger.open(tmp_path / "ledger.jsonl")
    ledger.append(record())
    before = ledger.path.read_bytes()
    monkeypatch.setattr("os.fsync", lambda fd: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(ScaffoldError, match="could not be recorded .No space left on device.*not paid twice"):
        ledger.append(record(id="a1"))
    assert ledger.path.read_bytes().startswith(before) and len(ledger.records) == 1


def test_threads_write_whole_lines(tmp_path):
    ledger = Ledger.open(tmp_path / "ledger.jsonl")
    threads = [
        threading.Thread(target=lambda i=i: [ledger.append(record(id=f"{i}-{j}")) for j in range(5)]) for i in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({json.loads(line)["id"] for line in ledger.path.read_text().splitlines()}) == 30


def test_rejected_reply_is_reusable_until_its_last_repair_is_rejected_too(tmp_path):
    ledger, question = Ledger.open(tmp_path / "ledger.jsonl"), call()
    rejected = record(key=question.key, verdict=["bad"])
    ledger.append(rejected)
    assert ledger.answer(question) == (rejected, True)
    assert ledger.reusable(question, repairs=1) == rejected and ledger.reusable(question, repairs=0) is None
    ledger.append(record(id="a1", key="k1", turn=1, repairs="a0", verdict=["worse"]))
    assert ledger.reusable(question, repairs=2) == rejected and ledger.reusable(question, repairs=1) is None
    anew = record(id="b0", key=question.key, verdict=["bad"])
    ledger.append(anew)
    assert ledger.reusable(question, repairs=1) == anew
    assert Ledger.read(ledger.path).reusable(question, repairs=1) == anew


def test_reply_that_led_to_an_accepted_one_stays_reusable(tmp_path):
    ledger, question = Ledger.open(tmp_path / "ledger.jsonl"), call()
    rejected = record(key=question.key, verdict=["bad"])
    ledger.append(rejected)
    ledger.append(record(id="a1", key="k1", turn=1, repairs="a0"))
    ledger.append(record(id="a2", key="k2", turn=2, repairs="a1", verdict=["bad under a stricter check"]))
    assert ledger.reusable(question, repairs=0) == rejected
    assert Ledger.read(ledger.path).reusable(question, repairs=0) == rejected
    assert ledger.reusable(call(index=1), repairs=0) is None and ledger.reusable(call(seed=1), repairs=0) is None


def test_failed_attempt_answers_nothing(tmp_path):
    ledger, question = Ledger.open(tmp_path / "ledger.jsonl"), call()
    ledger.append(record(key=question.key, reply=None, verdict=["status 500"]))
    assert ledger.reusable(question, repairs=1) is None and ledger.answer(question) is None


def test_key_depends_on_the_request_alone():
    image = np.zeros((2, 3, 3), np.uint8)
    url = image_url(image)
    assert url != image_url(image.reshape(3, 2, 3)) and url != image_url(image + np.uint8(1)) and len(url) == 7 + 64
    key = call().key
    assert key == call(index=5, seed=6, task="other", turn=1).key
    assert len({key, call(model="n").key, call(parameters={"a": 1}).key, call(messages=()).key}) == 4
