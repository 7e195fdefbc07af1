"""A robot behind UDP: JSON messages with joints by name, so that no order has to be agreed on."""

import contextlib
import json
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from scaffoldlab.deployment.devices import JointState
from scaffoldlab.errors import ScaffoldError

RESTART = 1.0
"""Silence [s] after which a smaller sequence number means that the robot was started again."""


class UdpRobot:
    """Sends targets and receives joint states.

    Out: ``{"seq": n, "targets": {joint: m or rad}}``. In: ``{"seq": n, "positions": {...}, "velocities": {...}}``.
    The robot answers the address that the last message came from. The first message has no targets and only says hello.
    Packets that are lost, late or malformed are skipped.

    Args:
        address: ``udp://host:port``.
        joint_names: The J joints in the order of the arrays.
        timeout: How long to wait for the first joint state [s].
        clock: Clock of the loop [s].

    Attributes:
        malformed: Packets that were no joint state.

    Raises:
        ScaffoldError: Wrong address, or no joint state in time.
    """

    def __init__(
        self,
        address: str,
        joint_names: Sequence[str],
        *,
        timeout: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.address, self.joint_names, self._clock = address, list(joint_names), clock
        self.malformed, self._sent, self._received = 0, 0, -1
        self._state: JointState | None = None
        self._socket = _connect(address)
        deadline = clock() + timeout
        while self.state() is None:
            if clock() > deadline:
                self.close()
                hint = f"; {self.malformed} packets came that were none" if self.malformed else ""
                raise ScaffoldError(
                    f"robot {address}: no joint state within {timeout:g} s{hint}. Is its server running, and does it "
                    f"answer with positions and velocities of all {len(self.joint_names)} joints?"
                )
            self._write({})
            time.sleep(0.02)

    def state(self) -> JointState | None:
        """The newest joint state that has arrived, or None."""
        while True:
            try:
                packet = self._socket.recv(65536)
            except (BlockingIOError, ConnectionRefusedError):
                return self._state
            self._take(packet)

    def send(self, targets: np.ndarray) -> None:
        """Sends joint targets [m, rad], shape (J,)."""
        self._write({name: float(value) for name, value in zip(self.joint_names, targets, strict=True)})

    def close(self) -> None:
        """Closes the socket."""
        self._socket.close()

    def _write(self, targets: dict[str, float]) -> None:
        self._sent += 1
        packet = json.dumps({"seq": self._sent, "targets": targets}, allow_nan=False).encode()
        with contextlib.suppress(BlockingIOError, ConnectionRefusedError):  # nobody listens: like a lost packet
            self._socket.send(packet)

    def _take(self, packet: bytes) -> None:
        now = self._clock()
        try:
            message: Any = json.loads(packet)
            number = int(message["seq"])
            position, velocity = (
                np.array([message[key][name] for name in self.joint_names], float)
                for key in ("positions", "velocities")
            )
            if not (np.isfinite(position).all() and np.isfinite(velocity).all()):
                raise ValueError
        except (ValueError, KeyError, TypeError):
            self.malformed += 1
            return
        restarted = self._state is not None and now - self._state.time > RESTART
        if number > self._received or restarted:
            self._received = number
            self._state = JointState(time=now, position=position, velocity=velocity)


def _connect(address: str) -> socket.socket:
    parts = urlsplit(address)
    try:
        port = parts.port
    except ValueError:
        port = None
    if parts.scheme != "udp" or not parts.hostname or not port:
        raise ScaffoldError(f"robot {address!r}: allowed: udp://host:port, e.g. udp://192.168.0.10:5005.")
    try:
        family, kind, protocol, _, target = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_DGRAM)[0]
    except OSError as error:
        raise ScaffoldError(f"robot {address}: host {parts.hostname!r} is not known ({error}).") from None
    connection = socket.socket(family, kind, protocol)
    connection.setblocking(False)
    connection.connect(target)
    return connection
