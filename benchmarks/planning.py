"""How long 100 plans of a model take that answers after a second: scripts/run python benchmarks/planning.py

The model is the tests' loopback server, in this process. Writes docs/numbers/planning.md.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests/unit")]
import test_planners_speed as speed  # noqa: E402  the server and the pictures that the test uses


def main() -> None:
    os.environ |= {"SCAFFOLDLAB_API_KEY": "sk-of-the-loopback-model", "NO_PROXY": "127.0.0.1"}
    speed.images()
    rows = []
    for asked, concurrency, rounds, given in (
        ("keypoints and trajectory", 16, 13, {}),
        ("keypoints and trajectory", 24, 9, {}),
        ("keypoints of 8 pictures at a time, `--batch 8`, and trajectory", 16, 8, {"batch": 8}),
        ("trajectory only, `--oracle keypoints`", 16, 7, {"true_keypoints": True}),
    ):
        colours = {"apple": speed.RED, "cutting board": speed.WOOD}
        with speed.SlowServer(colours=colours) as server, tempfile.TemporaryDirectory() as folder:
            started = time.monotonic()
            library = speed.make(server.url, Path(folder) / "calls.jsonl", concurrency=concurrency, **given)
            seconds = time.monotonic() - started
        floor = rounds * speed.SlowServer.latency_s
        rows.append(f"| {asked} | {concurrency} | {len(library)} | {floor:.1f} s | {seconds:.1f} s |")
    text = (
        "`scripts/run python benchmarks/planning.py`: 100 plans, a loopback model that answers after 1 s.\n\n"
        "| asked for | `--concurrency` | plans | floor | took |\n|---|---|---|---|---|\n" + "\n".join(rows) + "\n"
    )
    (ROOT / "docs/numbers/planning.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
