"""Recordings of Record3D of known truth are read back, in place; whatever is wrong with one is told."""

import json
import shutil
import struct
import sys
import zipfile

import lzfse
import numpy as np
import pytest
from PIL import Image

from captures import REAL_FAULTS, pack, tabletop, write_record3d
from scaffoldlab.cli import main
from scaffoldlab.errors import ScaffoldError
from scaffoldlab.scan.captures.capture import read_capture
from scaffoldlab.scan.captures.checks import examine_capture


@pytest.fixture(scope="module")
def truth():
    return tabletop(0, count=3)


@pytest.fixture(scope="module")
def written(truth, tmp_path_factory):
    """The archive and the folder beside it that it unpacks to."""
    path = tmp_path_factory.mktemp("written") / "desk.r3d"
    write_record3d(truth, path)
    return path


@pytest.fixture
def folder(written, tmp_path):
    return shutil.copytree(written.with_suffix(""), tmp_path / "desk")


def edit(folder, **changes):
    """Changes what metadata says; None takes it out."""
    path = next(folder.glob("metadata*"))
    data = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in data.items() if value is not None}))


def told(folder):
    return json.loads((folder / "metadata").read_text())


def check(capture, truth, *, columns=8):
    """Cameras, depth and surfaces are the true ones; the left columns have no confidence."""
    assert capture.posed and capture.depth_unit == 1.0 and capture.depth_unit_is_sure
    assert [f.name for f in capture.frames] == [str(i) for i in range(len(truth.cameras))]
    for index, (frame, camera) in enumerate(zip(capture.frames, truth.cameras, strict=True)):
        np.testing.assert_allclose(frame.camera.intrinsics, camera.intrinsics, rtol=1e-9)
        assert (frame.camera.width, frame.camera.height) == (camera.width, camera.height)
        image, picture = frame.image(), truth.picture(index)
        assert not image.depth[:, :columns].any()
        np.testing.assert_allclose(image.depth[:, columns:], picture.depth[:, columns:], atol=1e-6)
        assert np.abs(image.rgb.astype(int) - picture.rgb).mean() < 5  # JPEG
        row, column = np.nonzero(image.depth)
        assert len(row) > 5000
        assert truth.distance(image.lift(np.column_stack((column, row)) + 0.5)).max() < 0.002


def test_archive_is_read_in_place(written, truth):
    before = sorted(written.parent.rglob("*"))
    check(read_capture(written), truth)
    assert sorted(written.parent.rglob("*")) == before


def test_unpacked_archive_is_read(folder, truth):
    check(read_capture(folder), truth)


def test_export_as_exr_is_read(truth, tmp_path):
    write_record3d(truth, tmp_path, exported=True)
    check(read_capture(tmp_path), truth, columns=0)


def test_pixels_are_not_read_before_they_are_asked_for(folder):
    for path in folder.glob("rgbd/*.*"):
        path.write_bytes(path.read_bytes()[:2000] if path.suffix == ".jpg" else b"")
    frame = read_capture(folder).frames[0]
    with pytest.raises(ScaffoldError, match=r"rgbd/0.depth: not readable as an image \(no LZFSE data"):
        frame.raw_depth()


def test_depth_of_no_confidence_is_not_measured_and_confidence_may_be_missing(folder, truth):
    (folder / "rgbd/1.conf").unlink()
    frames = read_capture(folder).frames
    assert not frames[0].image().depth[:, :8].any()
    np.testing.assert_allclose(frames[1].image().depth, truth.picture(1).depth, atol=1e-6)


def test_every_frame_has_its_own_intrinsics(folder):
    edit(folder, perFrameIntrinsicCoeffs=[[300 + i, 310 + i, 150 + i, 110 + i] for i in range(3)])
    for index, frame in enumerate(read_capture(folder).frames):  # the depth has half the pixels that K is of
        half = (300 + index) / 2, (310 + index) / 2, (150 + index) / 2, (110 + index) / 2
        found = frame.camera.intrinsics
        np.testing.assert_allclose((found[0, 0], found[1, 1], found[0, 2], found[1, 2]), half)


@pytest.mark.parametrize("scale", [1, 3])
def test_pictures_may_be_of_another_size_than_intrinsics(truth, scale, tmp_path):
    write_record3d(truth, tmp_path, scale=scale)
    check(read_capture(tmp_path), truth)


@pytest.mark.parametrize("size", [(192, 256), (640, 480)])
def test_size_of_the_depth_is_told_by_its_values_in_old_recordings(size, tmp_path):
    truth = tabletop(1, count=2, width=size[0], height=size[1])
    write_record3d(truth, tmp_path)
    edit(tmp_path, dw=None, dh=None)
    check(read_capture(tmp_path), truth)


def test_camera_that_was_not_tracked_has_no_poses(folder):
    edit(folder, poses=3 * [[0, 0, 0, 1, 0, 0, 0]])
    capture = read_capture(folder)
    assert not capture.posed
    np.testing.assert_array_equal(capture.frames[1].camera.pose_ec, np.eye(4))


def test_doctor_says_all_right(tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    truth = tabletop(3, count=5, level_world=True)
    write_record3d(truth, tmp_path / "desk.r3d", faults=REAL_FAULTS)
    assert main(["scan", "doctor", str(tmp_path / "desk.r3d")]) == 0
    said = "".join(capfd.readouterr())
    assert "Record3D's recording, 5 frames, posed" in said and "15 files are whole" in said and "gravity" in said
    assert "warning" not in said and "error" not in said
    assert {f.severity for f in examine_capture(tmp_path / "desk")} == {"ok"}


def test_doctor_names_a_file_that_is_cut_off(folder):
    path = folder / "rgbd/1.conf"
    path.write_bytes(path.read_bytes()[:-8])
    (finding,) = [f for f in examine_capture(folder, sample=1) if f.check == "images"]
    assert finding.severity == "error" and "1 of 9 files" in finding.seen and "rgbd/1.conf" in finding.seen


BAD = {
    "no metadata": (lambda d: (d / "metadata").unlink(), ["metadata: FileNotFoundError", "allowed: JSON"]),
    "metadata of words": (lambda d: (d / "metadata").write_text("{"), ["metadata: JSONDecodeError"]),
    "no K": (lambda d: edit(d, K=None), ["KeyError 'K'", "K of 9 numbers"]),
    "K of 8 numbers": (lambda d: edit(d, K=[1] * 8), ["metadata: ValueError", "K of 9 numbers"]),
    "K row by row": (lambda d: edit(d, K=[300, 0, 160, 0, 300, 120, 0, 0, 1]), ["K is [300", "column after column"]),
    "K of zeros": (lambda d: edit(d, K=[0, 0, 0, 0, 0, 0, 0, 0, 1]), ["positive focal lengths"]),
    "no pixels": (lambda d: edit(d, w=-320), ["of -320 x 240 pixels"]),
    "infinite pixels": (lambda d: edit(d, dw=float("inf")), ["OverflowError"]),
    "own intrinsics of one frame": (
        lambda d: edit(d, perFrameIntrinsicCoeffs=[[300, 300, 160, 120]]),
        ["perFrameIntrinsicCoeffs of 4 numbers for each frame"],
    ),
    "pose of 6 numbers": (lambda d: edit(d, poses=3 * [[0] * 6]), ["metadata: ValueError", "poses of 7"]),
    "pose that turns nowhere": (lambda d: edit(d, poses=3 * [[0] * 7]), ["pose 0 of 3 is [0.0", "of length 1"]),
    "pose of NaN": (
        lambda d: edit(d, poses=[*told(d)["poses"][:2], [0, 0, 0, 1, float("nan"), 0, 0]]),
        ["pose 2 of 3", "all finite"],
    ),
    "fewer poses": (lambda d: edit(d, poses=told(d)["poses"][:2]), ["3 pictures and 2 poses, no match for 2"]),
    "no frames": (lambda d: (shutil.rmtree(d / "rgbd"), (d / "rgbd").mkdir(), edit(d, poses=[])), ["0 pictures and 0"]),
    "no picture": (lambda d: (d / "rgbd/1.jpg").unlink(), ["2 pictures and 3 poses, no match for 1"]),
    "no depth": (lambda d: (d / "rgbd/2.depth").unlink(), ["2 depth images and 3 poses, no match for 2"]),
    "depth on its side": (
        lambda d: edit(d, dw=120, dh=160),
        ["the depth has 120 x 160", "K is of 320 x 240", "one aspect for all"],
    ),
    "picture on its side": (
        lambda d: Image.new("RGB", (240, 320)).save(d / "rgbd/1.jpg"),
        ["rgbd/1.jpg: 240 x 320 pixels", "one aspect"],
    ),
    "depth finer than its picture": (lambda d: edit(d, dw=3200, dh=2400), ["the depth has 3200 x 2400"]),
    "picture of words": (lambda d: (d / "rgbd/1.jpg").write_text("<html>"), ["rgbd/1.jpg: not readable"]),
    "old depth of another camera": (
        lambda d: edit(d, dw=None, dh=None),
        ["rgbd/0.depth: holds 19200 values", "256 x 192"],
    ),
    "old depth of words": (
        lambda d: (edit(d, dw=None, dh=None), (d / "rgbd/0.depth").write_text("none")),
        ["rgbd/0.depth: not readable as an image (no LZFSE data"],
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_recording_is_refused(folder, name):
    change, expected = BAD[name]
    change(folder)
    for capture in (folder, pack(folder, folder.with_suffix(".r3d"))):
        with pytest.raises(ScaffoldError) as error:
            read_capture(capture)
        assert str(error.value).startswith(str(capture))
        for part in expected:
            assert part in str(error.value)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (lambda good: good[: len(good) // 2], "no LZFSE data, or cut off"),
        (lambda good: b"<html>", "no LZFSE data"),
        (lambda good: lzfse.compress(lzfse.decompress(good)[:-4]), "76796 bytes, where 160 x 120 pixels are 76800"),
        (lambda good: lzfse.compress(bytes(1 << 20)), "1048576 bytes, where"),
        (lambda good: bytes(100_000), "more than the 76800 bytes that it should unpack to"),
    ],
)
def test_bad_depth_is_told_when_it_is_read(folder, data, expected):
    path = folder / "rgbd/1.depth"
    path.write_bytes(data(path.read_bytes()))
    frame = read_capture(pack(folder, folder.with_suffix(".r3d"))).frames[1]
    with pytest.raises(ScaffoldError, match=rf"desk.r3d/rgbd/1.depth: not readable as an image \(.*{expected}"):
        frame.image()


def test_archive_that_is_cut_off_or_none_is_refused(written, tmp_path):
    path = tmp_path / "desk.r3d"
    for data in (written.read_bytes()[:-30], b"<html>", b""):
        path.write_bytes(data)
        with pytest.raises(ScaffoldError, match=r"desk.r3d: no recording of Record3D, or cut off"):
            read_capture(path)


def test_archive_with_changed_bytes_is_told_when_they_are_read(written, tmp_path):
    path, data = tmp_path / "desk.r3d", bytearray(written.read_bytes())
    with zipfile.ZipFile(written) as archive:
        data[archive.getinfo("rgbd/1.depth").header_offset + 2000] ^= 255
    path.write_bytes(data)
    with pytest.raises(ScaffoldError, match=r"rgbd/1.depth: not readable .*CRC"):
        read_capture(path).frames[1].image()


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        ("../evil.jpg", 1, "holds '../evil.jpg', a path that leaves its folder"),
        ("/evil.jpg", 1, "a path that leaves its folder"),
        ("rgbd/3.depth", 8 << 20, r"bytes unpack to \d+; allowed: about as many"),
    ],
)
def test_archive_with_a_way_out_or_a_bomb_is_refused(written, tmp_path, name, size, expected):
    path = shutil.copy(written, tmp_path)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, bytes(size))
    with pytest.raises(ScaffoldError, match=rf"desk.r3d: .*{expected}.*Refused"):
        read_capture(path)


@pytest.mark.parametrize(("offset", "value"), [(8, 1), (10, 12)])
def test_archive_that_is_encrypted_or_packed_otherwise_is_refused(written, tmp_path, offset, value):
    path, data = tmp_path / "desk.r3d", bytearray(written.read_bytes())
    struct.pack_into("<H", data, data.rindex(b"PK\x01\x02") + offset, value)
    path.write_bytes(data)
    with pytest.raises(ScaffoldError, match="is encrypted or compressed in another way"):
        read_capture(path)


@pytest.mark.parametrize("name", ["rgbd/1.depth", "metadata"])
def test_link_out_of_an_unpacked_recording_is_refused(folder, name):
    shutil.move(folder / name, folder.parent / "other")
    (folder / name).symlink_to(folder.parent / "other")
    with pytest.raises(ScaffoldError, match=f"{name}: is a link to"):
        read_capture(folder)


def test_missing_package_is_told(written, monkeypatch):
    monkeypatch.setitem(sys.modules, "lzfse", None)
    with pytest.raises(ScaffoldError, match=r"lzfse.*pip install scaffoldlab\[scan\]"):
        read_capture(written).frames[0].image()
