"""A robot behind UDP: JSON messages with joints by name, so that no order has to be agreed on."""

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

AT_ONCE = 1000
"""Packets that are taken in at one look, more than a socket's buffer holds: a flood must not keep the loop."""

LARGEST = 1e6
"""Largest joint position [m, rad] and velocity [m/s, rad/s] that is believed; float32 and its squares hold it."""

LARGEST_NUMBER = 2**64
"""Largest sequence number that is believed."""


class UdpRobot:
    """Sends targets and receives joint states.

    Out: ``{"seq": n, "targets": {joint: m or rad}}``. In: ``{"seq": n, "positions": {...}, "velocities": {...}}``.
    The robot answers the address that the last message came from. The first message has no targets and only says hello.
    Packets that are lost, late or malformed are skipped, and an error of the network is a lost packet: the joint state
    grows old, and whoever relies on it sees so by its time.

    Args:
        address: ``udp://host:port``.
        joint_names: The J joints in the order of the arrays.
        timeout: How long to wait for the first joint state [s].
        clock: Clock of the loop [s].

    Attributes:
        malformed: Packets that were no joint state.
        lost: Packets in whose place an error of the network came, in both directions.

    Raises:
        ScaffoldError: Wrong address, no way to it, or no joint state in time.
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
        self.malformed = self.lost = self._sent = 0
        self._received: float = 0
        self._state: JointState | None = None
        self._error: OSError | None = None
        self._socket = _connect(address)
        deadline = clock() + timeout
        while self.state() is None:
            if clock() > deadline:
                self.close()
                hint = f"; {self.malformed} packets arrived that were not joint states" if self.malformed else ""
                hint += f"; the network says: {self._error.strerror or self._error}" if self._error else ""
                raise ScaffoldError(
                    f"robot {address}: no joint state within {timeout:g} s{hint}. Is its server running, and does it "
                    f"answer with positions and velocities of all {len(self.joint_names)} joints?"
                )
            self._write({})
            time.sleep(0.02)

    def state(self) -> JointState | None:
        """The newest joint state that has arrived, or None."""
        for _ in range(AT_ONCE):
            try:
                packet = self._socket.recv(65536)
            except BlockingIOError:
                break
            except OSError as error:
                self._lose(error)
                break
            self._take(packet)
        return self._state

    def send(self, targets: np.ndarray) -> None:
        """Sends joint targets [m, rad], shape (J,)."""
        self._write({name: float(value) for name, value in zip(self.joint_names, targets, strict=True)})

    def close(self) -> None:
        """Closes the socket."""
        self._socket.close()

    def _write(self, targets: dict[str, float]) -> None:
        self._sent += 1
        packet = json.dumps({"seq": self._sent, "targets": targets}, allow_nan=False).encode()
        try:
            self._socket.send(packet)
        except OSError as error:
            self._lose(error)

    def _lose(self, error: OSError) -> None:
        """Counts a packet as lost: nobody listens, the robot has lost its power, a cable is out."""
        self.lost, self._error = self.lost + 1, error

    def _take(self, packet: bytes) -> None:
        now = self._clock()
        try:
            message: Any = json.loads(packet)
            number = _number(message["seq"], LARGEST_NUMBER)
            position, velocity = (
                np.array([_number(message[key][name], LARGEST) for name in self.joint_names], float)
                for key in ("positions", "velocities")
            )
        except (ValueError, KeyError, TypeError, RecursionError):
            self.malformed += 1
            return
        late = self._state is not None and number <= self._received and now - self._state.time <= RESTART
        if not late:
            self._received = number
            self._state = JointState(time=now, position=position, velocity=velocity)


def _number(value: Any, largest: float) -> float:
    """A JSON number of at most some size; true, texts, lists, NaN and infinity are none."""
    if type(value) not in (int, float) or not abs(value) <= largest:
        raise ValueError
    return value


def _connect(address: str) -> socket.socket:
    try:
        parts = urlsplit(address)
        scheme, host, port = parts.scheme, parts.hostname, parts.port
    except ValueError:  # half a bracket, a port of letters
        scheme = host = port = None
    if scheme != "udp" or not host or not port:
        raise ScaffoldError(f"robot {address!r}: allowed: udp://host:port, e.g. udp://192.168.0.10:5005.")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError) as error:
        raise ScaffoldError(f"robot {address}: host {host!r} is not known ({error}).") from None
    # Few robots listen on both kinds of addresses, and localhost is often ::1 first.
    family, kind, protocol, _, target = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    connection = None
    try:
        connection = socket.socket(family, kind, protocol)
        connection.setblocking(False)
        connection.connect(target)
    except OSError as error:
        if connection:
            connection.close()
        raise ScaffoldError(
            f"robot {address}: cannot be reached ({error.strerror or error}). Give the address of one robot, and look "
            f"whether this computer has a way to it, e.g. with `ping {host}`."
        ) from None
    return connection
