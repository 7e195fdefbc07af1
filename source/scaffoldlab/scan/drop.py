"""Lets bodies fall and come to rest in Isaac Lab, in a process of its own for each engine."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from scaffoldlab.errors import ScaffoldError

ENGINES = ("ovphysx", "newton_mjwarp")
RECORD_HZ = 30


@dataclass(frozen=True)
class Body:
    """A body in the drop.

    Attributes:
        name: Its name.
        usd: Its USD file.
        pose: Initial pose, xyz [m] + quat_xyzw.
        static: It never moves.
    """

    name: str
    usd: str
    pose: tuple[float, ...]
    static: bool = False


def drop(bodies: Sequence[Body], *, physics: str, seconds: float = 2.0, timeout: float = 300.0) -> np.ndarray:
    """Lets bodies fall onto a floor at z = 0, and onto what is static.

    Args:
        bodies: At least one that is not static.
        physics: Engine of :data:`ENGINES`.
        seconds: Simulated time [s].
        timeout: Time for the process [s].

    Returns:
        Poses of the bodies that move, xyz [m] + quat_xyzw, 30 times a second from the start, shape (T, B, 7).

    Raises:
        ScaffoldError: The engine failed or took too long, with its last words.
    """
    with tempfile.TemporaryDirectory() as folder:
        spec, result = Path(folder) / "drop.json", Path(folder) / "poses.npy"
        spec.write_text(json.dumps({"physics": physics, "seconds": seconds, "bodies": [asdict(b) for b in bodies]}))
        command = [sys.executable, "-m", "scaffoldlab.scan.drop_process", str(spec), str(result)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
        except subprocess.TimeoutExpired:
            raise ScaffoldError(
                f"drop on {physics}: not finished after {timeout:g} s. Try again with less load."
            ) from None
        if not result.is_file():
            words = " ".join((done.stderr or done.stdout).split()[-40:])
            raise ScaffoldError(f"drop on {physics}: the engine ended with {done.returncode}: {words}")
        return np.load(result)
