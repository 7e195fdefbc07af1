"""Devices of a deployment: folders that are being written, poses that are late or wrong, a robot behind UDP."""

import errno
import os
import shutil
import socket
import time

import numpy as np
import pytest
from PIL import Image

from deployments import POSE_EC, Clock, UdpServer, pose_in_camera
from scaffoldlab.deployment.capture import CaptureFolder
from scaffoldlab.deployment.tracker import LOOK_BACK, ObInCamFolder, PoseGate
from scaffoldlab.deployment.udp_robot import UdpRobot
from scaffoldlab.errors import ScaffoldError

NAMES = ["wrist_x", "index_0", "thumb_3"]


# --- capture --------------------------------------------------------------------------------------------------------


@pytest.fixture
def capture(tmp_path):
    """Two pictures of 8 x 6 pixels, the second in red at 1.25 m."""
    for name in ("rgb", "depth"):
        (tmp_path / name).mkdir()
    for number, (color, depth) in enumerate((((0, 0, 0), 500), ((255, 0, 0), 1250))):
        Image.new("RGB", (8, 6), color).save(tmp_path / f"rgb/{number:04d}.png")
        Image.fromarray(np.full((6, 8), depth, np.uint16)).save(tmp_path / f"depth/{number:04d}.png")
    np.savetxt(tmp_path / "cam_K.txt", [[10, 0, 3.5], [0, 10, 2.5], [0, 0, 1]])
    np.savetxt(tmp_path / "camera_in_env.txt", POSE_EC)
    return tmp_path


def test_capture_is_the_newest_picture_in_metres(capture):
    image = CaptureFolder(capture).capture()
    assert (image.rgb == (255, 0, 0)).all() and (image.depth == 1.25).all()
    # OpenCV's (3.5, 2.5) is the middle of 8 x 6 pixels, which is (4, 3) here: its ray is the optical axis.
    np.testing.assert_allclose(image.lift(np.array([[4, 3]])), [POSE_EC[:3, 3] + 1.25 * POSE_EC[:3, 2]], atol=1e-9)
    assert (CaptureFolder(capture, depth_unit=1 / 5000).capture().depth == 0.25).all()


def test_picture_that_is_being_written_is_passed_over(capture):
    whole = (capture / "rgb/0001.png").read_bytes()
    (capture / "rgb/0002.png").write_bytes(whole[: len(whole) // 2])
    Image.fromarray(np.full((6, 8), 700, np.uint16)).save(capture / "depth/0002.png")
    assert (CaptureFolder(capture).capture().depth == 1.25).all()
    (capture / "rgb/0003.png").write_bytes(whole)  # its depth has not come yet
    assert (CaptureFolder(capture).capture().depth == 1.25).all()
    depth = (capture / "depth/0002.png").read_bytes()
    (capture / "depth/0003.png").write_bytes(depth[: len(depth) // 2])
    (capture / "rgb/0004.png").write_bytes(whole)
    (capture / "depth/0004.png").write_bytes(whole.replace(b"\x00\x00\x00\rIHDR", b"\x00\x00\x00\x0cIHDR"))  # broken
    assert (CaptureFolder(capture).capture().depth == 1.25).all()


def test_picture_of_the_highest_number_is_the_newest(capture):
    for stem, depth in (("0009", 900), ("10", 1000), ("2", 200)):
        shutil.copy(capture / "rgb/0000.png", capture / f"rgb/{stem}.png")
        Image.fromarray(np.full((6, 8), depth, np.uint16)).save(capture / f"depth/{stem}.png")
    assert (CaptureFolder(capture).capture().depth == 1.0).all()


@pytest.mark.parametrize(
    ("depth", "got"),
    [
        (np.zeros((5, 8), np.uint16), "8 x 5 pixels, uint16 in 1 channel"),
        (np.zeros((6, 8), np.uint8), "8 x 6 pixels, uint8 in 1 channel"),  # drawn for people, not measured
        (np.zeros((6, 8, 3), np.uint8), "8 x 6 pixels, uint8 in 3 channel"),
    ],
)
def test_depth_of_another_kind_is_refused(capture, depth, got):
    Image.fromarray(depth).save(capture / "depth/0001.png")
    with pytest.raises(ScaffoldError, match=rf"rgb/0001.png is 8 x 6 pixels, depth/0001.png {got}.*allowed: .*uint16"):
        CaptureFolder(capture).capture()


def test_folder_without_a_pair_is_refused(capture):
    shutil.rmtree(capture / "depth")
    with pytest.raises(ScaffoldError, match=r"no readable pair rgb/NAME\.png, depth/NAME\.png"):
        CaptureFolder(capture).capture()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("camera_in_env.txt", None, ["camera_in_env.txt: missing", "4 x 4"]),
        ("camera_in_env.txt", "1 2 3", ["camera_in_env.txt", "4 x 4 numbers"]),
        ("camera_in_env.txt", "2 0 0 0 0 2 0 0 0 0 2 0 0 0 0 1", ["rotation part is off"]),
        ("camera_in_env.txt", "0 1 0 0 -1 0 0 0 0 0 1 0 1 2 3 1", ["last row is [1.0, 2.0, 3.0, 1.0]", "0 0 0 1"]),
        ("cam_K.txt", None, ["cam_K.txt: missing", "3 x 3"]),
        ("cam_K.txt", "10 0 4 0 -10 3 0 0 1", ["cam_K.txt: got [[10.0, 0.0, 4.0]", "positive focal lengths"]),
        ("cam_K.txt", "10 0 nan 0 10 3 0 0 1", ["cam_K.txt: got [[10.0, 0.0, nan]", "positive focal lengths"]),
        ("cam_K.txt", "10 0 0 0 10 0 4 3 1", ["cam_K.txt: got [[10.0, 0.0, 0.0]", "0 0 1"]),
    ],
)
def test_capture_without_what_it_needs_is_refused(capture, name, content, words):
    (capture / name).unlink() if content is None else (capture / name).write_text(content)
    with pytest.raises(ScaffoldError) as error:
        CaptureFolder(capture)
    assert all(word in str(error.value) for word in words), error.value


# --- tracker folder -------------------------------------------------------------------------------------------------


def write_pose(path, x: float, *, upto: int | None = None):
    pose = np.eye(4)
    pose[0, 3] = x
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(" ".join(f"{v:.8f}" for v in row) for row in pose)[:upto])


def polled(tracker, times: int = 1) -> list[float]:
    """What comes of some polls: the x of each pose of the apple."""
    return [poses["apple"][0, 3] for poses in (tracker.poll() for _ in range(times)) if poses]


def test_each_pose_is_given_once_and_the_newest_wins(tmp_path):
    tracker = ObInCamFolder(tmp_path, ["apple"])
    assert tracker.poll() == {}  # the tracker has not begun
    write_pose(tmp_path / "apple/ob_in_cam/9.txt", 0.9)
    write_pose(tmp_path / "apple/ob_in_cam/10.txt", 1.0)
    assert tracker.poll()["apple"][0, 3] == 1.0
    assert tracker.poll() == {}
    write_pose(tmp_path / "apple/ob_in_cam/11.txt", 1.1)
    assert tracker.poll()["apple"][0, 3] == 1.1


def test_half_written_pose_is_read_again_at_every_length(tmp_path):
    """A file is cut at every possible byte: never an error, never a wrong number, and in the end the pose."""
    tracker = ObInCamFolder(tmp_path, ["apple"])
    file = tmp_path / "ob_in_cam/0001.txt"
    write_pose(file, 0.123)
    length, seen = len(file.read_text()), []
    for upto in range(length + 1):
        write_pose(file, 0.123, upto=upto)
        seen += [pose["apple"] for pose in [tracker.poll()] if pose]
    assert len(seen) == 1 and seen[0][0, 3] == 0.123
    assert polled(tracker, 2 * LOOK_BACK) == []


def test_pose_that_is_completed_within_one_tick_of_the_disk_is_read(tmp_path):
    tracker = ObInCamFolder(tmp_path, ["apple"])
    for upto, expected in ((40, []), (None, [0.1])):
        write_pose(tmp_path / "ob_in_cam/1.txt", 0.1, upto=upto)
        os.utime(tmp_path / "ob_in_cam/1.txt", ns=(10**18, 10**18))
        assert polled(tracker) == expected


def test_matrix_without_the_last_row_of_a_pose_is_none(tmp_path):
    tracker = ObInCamFolder(tmp_path, ["apple"])
    write_pose(tmp_path / "ob_in_cam/1.txt", 0.1)
    np.savetxt(tmp_path / "ob_in_cam/2.txt", pose_in_camera(np.zeros(3)).T)
    np.savetxt(tmp_path / "ob_in_cam/3.txt", np.eye(4)[[0, 1, 2, 3, 3]])
    assert polled(tracker) == [0.1]


def test_older_pose_is_given_while_the_newest_is_being_written(tmp_path):
    tracker = ObInCamFolder(tmp_path, ["apple"])
    write_pose(tmp_path / "ob_in_cam/0001.txt", 0.1)
    write_pose(tmp_path / "ob_in_cam/0002.txt", 0.2, upto=40)
    assert tracker.poll()["apple"][0, 3] == 0.1
    write_pose(tmp_path / "ob_in_cam/0002.txt", 0.2)
    assert tracker.poll()["apple"][0, 3] == 0.2


def test_several_bodies_have_folders_of_their_own(tmp_path):
    tracker = ObInCamFolder(tmp_path, ["pear", "apple", "cabinet/drawer_top"])
    write_pose(tmp_path / "cabinet/drawer_top/ob_in_cam/1.txt", 0.3)
    write_pose(tmp_path / "apple/ob_in_cam/1.txt", 0.4)
    for place in ("ob_in_cam", "."):  # of whom?
        write_pose(tmp_path / place / "1.txt", 0.5)
    poses = tracker.poll()
    assert {body: pose[0, 3] for body, pose in poses.items()} == {"apple": 0.4, "cabinet/drawer_top": 0.3}


@pytest.mark.parametrize("place", ["apple/ob_in_cam", "apple", "ob_in_cam", "."])
def test_single_body_may_have_its_poses_in_four_places(tmp_path, place):
    (tmp_path / "apple").mkdir()  # e.g. of its mesh
    tracker = ObInCamFolder(tmp_path, ["apple"])
    write_pose(tmp_path / place / "1.txt", 0.3)
    assert polled(tracker) == [0.3]


def test_poses_of_two_places_are_not_mixed(tmp_path):
    tracker = ObInCamFolder(tmp_path, ["apple"])
    write_pose(tmp_path / "apple/ob_in_cam/1.txt", 0.3)
    write_pose(tmp_path / "ob_in_cam/2.txt", 0.9)
    assert polled(tracker, 2 * LOOK_BACK) == [0.3]
    shutil.rmtree(tmp_path / "apple")
    write_pose(tmp_path / "ob_in_cam/3.txt", 0.4)
    assert polled(tracker) == [0.4]


def test_files_of_a_capture_are_no_poses(capture):
    """BundleSDF's layout, before the tracker begins: the camera's pose is a rigid transform too."""
    tracker = ObInCamFolder(capture, ["apple"])
    write_pose(capture / "camera_in_env.txt", 0.9)
    write_pose(capture / "0003.txt", 0.9)
    assert tracker.poll() == {}
    write_pose(capture / "ob_in_cam/000001.txt", 0.1)
    assert polled(tracker) == [0.1]


def test_only_names_that_are_numbers_are_poses(tmp_path):
    tracker = ObInCamFolder(tmp_path, ["apple"])
    for name in ("latest.txt", "7x.txt", "x7.txt", "7.txt~", ".7.txt", "7.tmp.txt", "7..txt", "-7.txt", "٧.txt"):
        write_pose(tmp_path / "ob_in_cam" / name, 0.9)
    (tmp_path / "ob_in_cam/8.txt").mkdir()
    write_pose(tmp_path / "ob_in_cam/0001.txt", 0.1)
    assert polled(tracker) == [0.1]


@pytest.mark.parametrize("names", [("9", "10", "0011"), ("0.25", "0.5", "0.75"), ("1664912345.9", "1664912346.123")])
def test_higher_number_is_newer(tmp_path, names):
    tracker = ObInCamFolder(tmp_path, ["apple"])
    for x, name in reversed(list(enumerate(names))):
        write_pose(tmp_path / f"ob_in_cam/{name}.txt", x)
    assert polled(tracker, 3) == [len(names) - 1]


def test_poses_of_an_earlier_run_are_not_new(tmp_path):
    folder = tmp_path / "ob_in_cam"
    for number in (5, 6, 7):
        write_pose(folder / f"{number}.txt", 0.9)
    tracker = ObInCamFolder(tmp_path, ["apple"])
    assert polled(tracker, 2 * LOOK_BACK) == []
    for number in (0, 1):  # the tracker counts from 0 again
        write_pose(folder / f"{number}.txt", number)
        assert polled(tracker) == [number]
    for number in (6, 7, 8):  # it has dropped some, and overwrites what it finds
        rewrite(folder / f"{number}.txt", number)
        assert polled(tracker, 2 * LOOK_BACK) == [number]


def rewrite(path, x: float) -> None:
    """Writes a pose at another time than what was there; the clock of the disk counts in steps of some ms."""
    write_pose(path, x)
    os.utime(path, ns=2 * (time.time_ns() + 10**9,))


@pytest.mark.parametrize("emptied", [True, False])
def test_tracker_that_is_started_again_is_followed(tmp_path, emptied):
    tracker = ObInCamFolder(tmp_path, ["apple"])
    folder = tmp_path / "ob_in_cam"
    for number in range(50, 60):
        write_pose(folder / f"{number}.txt", 0.9)
        assert polled(tracker) == [0.9]
    write_pose(folder / "60.txt", 0.9, upto=40)  # it was stopped here
    assert polled(tracker, 2 * LOOK_BACK) == []
    if emptied:
        shutil.rmtree(folder)
        assert polled(tracker) == []
    rewrite(folder / "51.txt", 0.1)
    assert polled(tracker, LOOK_BACK) == [0.1]
    for number in (52, 53, 60, 61):
        rewrite(folder / f"{number}.txt", number)
        assert polled(tracker, 2 * LOOK_BACK) == [number]


def test_older_pose_that_is_written_again_is_no_restart_while_newer_ones_come(tmp_path):
    tracker = ObInCamFolder(tmp_path, ["apple"])
    for number in range(2 * LOOK_BACK):  # a new one every other poll
        write_pose(tmp_path / f"ob_in_cam/{number}.txt", number)
        assert polled(tracker) == [number]
        rewrite(tmp_path / "ob_in_cam/0.txt", 99)
        assert polled(tracker) == []


def test_many_unreadable_files_do_not_hide_a_pose(tmp_path):
    """A tracker may write nothing where it has lost the object."""
    tracker = ObInCamFolder(tmp_path, ["apple"])
    for number in range(10, 30):
        write_pose(tmp_path / f"ob_in_cam/{number}.txt", 0.9, upto=0)
    write_pose(tmp_path / "ob_in_cam/9.txt", 0.1)
    assert polled(tracker, 2) == [0.1]
    write_pose(tmp_path / "ob_in_cam/1.txt", 0.2)
    assert polled(tracker, LOOK_BACK) == [0.2]


def test_tracker_without_a_folder_is_refused(tmp_path):
    with pytest.raises(ScaffoldError, match="no such folder"):
        ObInCamFolder(tmp_path / "none", ["apple"])


# --- gate -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def gate():
    return PoseGate("apple", np.zeros((1, 3)), POSE_EC, max_age=0.25, max_jump=0.05, settle=4)


def test_pose_becomes_a_keypoint_in_the_env_frame():
    gate = PoseGate("apple", np.array([[0.0, 0, 0.02], [0.1, 0, 0]]), POSE_EC)
    assert gate.trouble == "no pose of apple yet"
    gate.update(pose_in_camera(np.array([0.1, 0.2, 0.9]), (0, 0, np.pi / 2)), 0.0)
    assert gate.trouble == "" and gate.points_e is not None
    # A quarter turn round z takes x to y.
    np.testing.assert_allclose(gate.points_e, [[0.1, 0.2, 0.92], [0.1, 0.3, 0.9]], atol=1e-9)


def test_late_poses_are_trouble_until_one_comes(gate):
    gate.update(pose_in_camera(np.zeros(3)), 10.0)
    gate.update(None, 10.2)
    assert gate.trouble == ""
    gate.update(None, 10.3)
    assert gate.trouble == "no pose of apple for 0.25 s"
    gate.update(pose_in_camera(np.array([0.01, 0, 0])), 12.0)
    assert gate.trouble == ""


def test_jump_is_not_let_through_and_the_keypoint_stays(gate):
    gate.update(pose_in_camera(np.zeros(3)), 0.0)
    gate.update(pose_in_camera(np.array([0.3, 0, 0])), 0.03)
    assert gate.trouble == "wrong pose of apple: it jumped by 30 cm"
    np.testing.assert_allclose(gate.points_e, [[0, 0, 0]], atol=1e-9)
    gate.update(None, 0.04)
    assert gate.trouble  # nothing new is no reason to believe
    gate.update(pose_in_camera(np.array([0.02, 0, 0])), 0.06)
    assert gate.trouble == ""


def test_jump_is_that_of_the_keypoint_that_moves_most():
    gate = PoseGate("apple", np.array([[0.0, 0, 0], [0.1, 0, 0]]), POSE_EC, max_jump=0.05)
    gate.update(pose_in_camera(np.zeros(3), (0, 0, 0.3)), 0.0)
    gate.update(pose_in_camera(np.array([0.0, 0, 0.04]), (0, 0, 0.3)), 0.1)
    assert gate.trouble == ""
    gate.update(pose_in_camera(np.array([0.0, 0, 0.04]), (0, 0, 0.3 + np.radians(33))), 0.2)  # 0.1 m by 33 deg
    assert gate.trouble == "wrong pose of apple: it jumped by 6 cm"


def test_poses_that_agree_with_a_jump_have_to_follow_each_other(gate):
    for x in (0, 0.3, 0.3, 0.3, 0, 0.3):
        gate.update(pose_in_camera(np.array([x, 0, 0])), 0.0)
    assert gate.trouble == "wrong pose of apple: it jumped by 30 cm"


def test_poses_that_jump_about_are_never_believed_and_those_that_agree_are(gate):
    gate.update(pose_in_camera(np.zeros(3)), 0.0)
    for number in range(20):
        gate.update(pose_in_camera(np.array([0.3 + 0.2 * (number % 2), 0, 0])), 0.03 * number)
        assert gate.trouble
    for number in range(4):
        assert gate.trouble, number
        gate.update(pose_in_camera(np.array([0.7 + 0.01 * number, 0, 0])), 1 + 0.03 * number)
    assert gate.trouble == ""
    np.testing.assert_allclose(gate.points_e, [[0.73, 0, 0]], atol=1e-9)


def test_failed_registration_and_what_is_no_pose_are_told(gate):
    guess = np.eye(4)
    guess[:3, 3] = (0, 0, 0.6)
    gate.update(guess, 0.0)
    assert "registration has failed" in gate.trouble
    gate.update(2 * pose_in_camera(np.zeros(3)), 0.1)
    assert "rotation part is off" in gate.trouble
    gate.update(np.full((4, 4), np.nan), 0.2)
    assert "not finite" in gate.trouble and gate.points_e is None


# --- robot ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def server():
    server = UdpServer(NAMES, np.array([0.1, 0.2, 0.3]))
    yield server
    server.close()


def wait_for(condition, seconds: float = 2.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_robot_says_where_its_joints_are_and_goes_where_it_is_told(server):
    robot = UdpRobot(server.address, NAMES)
    state = robot.state()
    assert state is not None and server.messages[0]["targets"] == {}
    np.testing.assert_allclose(state.position, [0.1, 0.2, 0.3])
    np.testing.assert_allclose(state.velocity, [0.25, 0.25, 0.25])
    robot.send(np.array([1.0, 2.0, 3.0]))
    wait_for(lambda: robot.state().position[2] == 3.0)
    assert server.messages[-1]["targets"] == {"wrist_x": 1.0, "index_0": 2.0, "thumb_3": 3.0}
    assert [message["seq"] for message in server.messages] == list(range(1, len(server.messages) + 1))
    robot.close()


def test_joints_are_matched_by_name_whatever_their_order(server):
    robot = UdpRobot(server.address, NAMES[::-1])
    np.testing.assert_allclose(robot.state().position, [0.3, 0.2, 0.1])
    robot.close()


def test_malformed_and_old_packets_are_skipped(server):
    good = server.state(10**6, positions={"wrist_x": 7.0, "index_0": 7.0, "thumb_3": 7.0})
    server.noise = [b"{", b"[1]", b'{"seq": 1}', good.replace(b"7.0", b"NaN"), b"\xff\xfe", good]
    robot = UdpRobot(server.address, NAMES)
    wait_for(lambda: robot.state().position[0] == 7.0 and robot.malformed >= 5)
    time.sleep(0.05)  # the server's own answers have smaller numbers: they are old
    assert robot.state().position[0] == 7.0
    robot.close()


def test_robot_that_is_not_there_is_an_error_in_time():
    begun = time.monotonic()
    with pytest.raises(ScaffoldError, match=r"no joint state within 0\.2 s.*3 joints"):
        UdpRobot("udp://127.0.0.1:9", NAMES, timeout=0.2)
    assert time.monotonic() - begun < 2


@pytest.mark.parametrize(
    "address", ["127.0.0.1:5000", "tcp://a:1", "udp://a", "udp://:5", "udp://a:99999", "udp://[::1:5", "udp://a:-5"]
)
def test_address_of_another_kind_is_refused(address):
    with pytest.raises(ScaffoldError, match=r"allowed: udp://host:port"):
        UdpRobot(address, NAMES)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("udp://255.255.255.255:5005", r"255\.255\.255\.255:5005: cannot be reached \(.*Give the address of one robot"),
        (f"udp://{70 * 'a'}:5005", r"host 'aaa.*' is not known"),
    ],
)
def test_address_that_no_socket_can_be_opened_to_is_an_error_that_helps(address, words):
    with pytest.raises(ScaffoldError, match=words):
        UdpRobot(address, NAMES)


def test_name_with_addresses_of_both_kinds_means_the_older_kind(server, monkeypatch):
    """``localhost`` is ``::1`` first on many computers, and servers listen on 127.0.0.1."""
    port = int(server.address.rpartition(":")[2])
    older = socket.getaddrinfo("127.0.0.1", port, type=socket.SOCK_DGRAM)
    newer = [(socket.AF_INET6, socket.SOCK_DGRAM, socket.IPPROTO_UDP, "", ("::1", port, 0, 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: newer + older)
    UdpRobot(f"udp://localhost:{port}", NAMES, timeout=1.0).close()


@pytest.fixture
def still(server):
    """A robot whose server says only what the test tells it to, by a clock that stands still."""
    server.moves = False
    robot = UdpRobot(server.address, NAMES, clock=Clock())
    yield robot
    robot.close()


def tell(server, packet: bytes) -> None:
    """Sends one packet to the robot; on one computer it has arrived when this returns."""
    server._socket.sendto(packet, server._sender)


SEVENS = dict.fromkeys(NAMES, 7.0)

MALFORMED = {
    "number is infinite": {"seq": float("inf")},
    "number has 400 digits": {"seq": 10**400},
    "number is a text": {"seq": "1001"},
    "number is true": {"seq": True},
    "positions are a list": {"positions": [7.0, 7.0, 7.0]},
    "position of a joint is missing": {"positions": {"wrist_x": 7.0, "index_0": 7.0}},
    "each position is a list of two": {"positions": dict.fromkeys(NAMES, (1, 2))},
    "each position is a list of one": {"positions": dict.fromkeys(NAMES, (7.0,))},
    "position is a text": {"positions": SEVENS | {"wrist_x": "7"}},
    "position is true": {"positions": SEVENS | {"wrist_x": True}},
    "position is nothing": {"positions": SEVENS | {"wrist_x": None}},
    "position has 400 digits": {"positions": SEVENS | {"wrist_x": 10**400}},
    "position is too large for float32": {"positions": SEVENS | {"wrist_x": -1e300}},
    "velocity is infinite": {"velocities": SEVENS | {"wrist_x": float("-inf")}},
    "velocity is not a number": {"velocities": SEVENS | {"wrist_x": float("nan")}},
    "no velocities": {"velocities": None},
}


@pytest.mark.parametrize("name", [*MALFORMED, "deep nesting", "empty"])
def test_packet_that_is_no_joint_state_is_skipped(server, still, name):
    packet = {"deep nesting": 60000 * b"[", "empty": b""}.get(name)
    if packet is None:
        packet = server.state(**({"seq": 1000, "positions": SEVENS} | MALFORMED[name]))
    tell(server, packet)
    np.testing.assert_allclose(still.state().position, [0.1, 0.2, 0.3])
    assert still.malformed == 1
    tell(server, server.state(1001, positions=SEVENS))
    state = still.state()
    assert (state.position == 7).all() and state.position.shape == state.velocity.shape == (3,)
    assert still.malformed == 1


@pytest.mark.parametrize("numbers", [(1, 2), (1.0, 1.5)])
def test_newer_joint_state_wins_in_whatever_order_they_come(server, still, numbers):
    for number in numbers[::-1]:
        tell(server, server.state(1000 + number, positions=SEVENS | {"wrist_x": number}))
    assert still.state().position[0] == numbers[-1]


def test_robot_that_was_started_again_counts_from_the_start(server, still):
    tell(server, server.state(1000, positions=SEVENS))
    before = still.state()
    still._clock.sleep(0.9)
    tell(server, server.state(1000, positions=SEVENS))
    tell(server, server.state(10, positions=SEVENS | {"wrist_x": 1.0}))  # late, or twice: not a second of silence
    assert still.state() is before
    still._clock.sleep(0.2)
    for number, x in ((10, 2.0), (11, 3.0), (9, 4.0)):
        tell(server, server.state(number, positions=SEVENS | {"wrist_x": x}))
    state = still.state()
    assert state.position[0] == 3.0 and state.time == still._clock.now


def test_first_joint_state_may_have_any_number(server):
    server.state = lambda seq, state=server.state: state(-5)
    assert UdpRobot(server.address, NAMES, timeout=1.0).state() is not None


class Unreachable:
    """A socket as Linux makes it when the robot has lost its power: errors come back instead of packets."""

    closed = False

    def recv(self, size):
        raise OSError(errno.EHOSTUNREACH, "No route to host")

    send = recv

    def close(self):
        self.closed = True


def test_network_error_is_a_lost_packet_and_the_robot_may_come_back(server, still, monkeypatch):
    before = still.state()
    with monkeypatch.context() as away:
        away.setattr(still, "_socket", Unreachable())
        still._clock.sleep(0.5)
        still.send(np.zeros(3))
        assert still.state() is before  # the loop sees how old it is, and holds
        assert still.lost == 2
    tell(server, server.state(1000, positions=SEVENS))
    assert (still.state().position == 7).all()


def test_robot_without_a_network_is_an_error_that_says_so(monkeypatch):
    unreachable = Unreachable()
    monkeypatch.setattr("scaffoldlab.deployment.udp_robot._connect", lambda address: unreachable)
    with pytest.raises(ScaffoldError, match=r"no joint state within 0\.1 s; .*No route to host"):
        UdpRobot("udp://10.0.0.1:5005", NAMES, timeout=0.1)
    assert unreachable.closed


def test_flood_of_packets_does_not_keep_the_loop(still, monkeypatch):
    left = [b"{"] * 5000

    class Flood:
        def recv(self, size):
            return left.pop()  # an IndexError if it is read to the end

    with monkeypatch.context() as flooded:
        flooded.setattr(still, "_socket", Flood())
        assert still.state() is not None
