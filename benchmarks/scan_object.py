"""How long a textured mesh takes to become a checked object: scripts/run python benchmarks/scan_object.py

Vases of 200 000 and of 5 million faces that no cache knows, and once again; writes docs/numbers/scan_object.md. The
engines' kernels are compiled by then, as they are after the first scan on a machine.
"""

import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import shapes  # the truth that the tests use

FACES = 200_000, 5_000_000


def main() -> None:
    sections = [measure(faces) for faces in FACES]
    cores = len(os.sched_getaffinity(0))
    text = (
        f"`scripts/run python benchmarks/scan_object.py`: textured vases to checked objects, dropped on ovphysx and "
        f"newton_mjwarp on the CPU, {cores} cores.\n\n"
        "| faces | first | again | hulls | volume of the colliders | largest memory |\n|---|---|---|---|---|---|\n"
        + "\n".join(sections)
        + "\n"
    )
    path = Path(__file__).parents[1] / "docs/numbers/scan_object.md"
    path.write_text(text)
    print(text)


def measure(faces: int) -> str:
    """A row of the table, measured with the command in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "vase.obj", Path(folder) / "vase"
        mesh = shapes.vase(faces).apply_scale(1 + 1e-3 * random.random())  # another one in each run
        shapes.textured(mesh).export(source)
        seconds, peak = [], 0
        for _ in range(2):
            started = time.monotonic()
            command = [sys.executable, "-m", "scaffoldlab", "scan", "object", source, "--name", "vase", "--out", out]
            with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
                while process.poll() is None:
                    peak = max(peak, memory_of(process.pid))
                    time.sleep(0.2)
            assert process.returncode == 0
            seconds.append(time.monotonic() - started)
        report = json.loads((out / "report.json").read_text())
    return (
        f"| {len(mesh.faces):,} | {seconds[0]:.1f} s | {seconds[1]:.1f} s | {report['hulls']} "
        f"| {100 * report['volume_error']:+.1f} % | {peak / 2**30:.1f} GB |"
    )


def memory_of(pid: int) -> int:
    """Memory of a process and of all that it has started, what they share counted once [bytes]."""
    total = 0
    with contextlib.suppress(psutil.Error):  # some end meanwhile
        for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                total += process.memory_full_info().pss
    return total


if __name__ == "__main__":
    main()
