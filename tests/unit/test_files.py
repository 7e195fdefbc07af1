"""write_atomic: the old content or the new, never anything else in the folder. keep_settings: no mixed folders."""

import errno
import json
import os
import stat

import pytest

from scaffoldlab.errors import ScaffoldError
from scaffoldlab.files import keep_settings, write_atomic


@pytest.mark.parametrize(
    "data", [b"new\xff", "neu \u00e4", lambda file: file.write(b"written")], ids=["bytes", "text", "writer"]
)
def test_content_arrives_and_replaces_the_old(tmp_path, data):
    path = tmp_path / "deep" / "er" / "file.bin"
    write_atomic(path, b"old, and much longer than the new content")
    write_atomic(path, data)
    assert path.read_bytes() in (b"new\xff", "neu \u00e4".encode(), b"written")
    assert os.listdir(path.parent) == ["file.bin"]


def test_file_gets_the_permissions_of_any_new_file(tmp_path):
    write_atomic(tmp_path / "ours", b"")
    (tmp_path / "theirs").touch()
    assert stat.S_IMODE((tmp_path / "ours").stat().st_mode) == stat.S_IMODE((tmp_path / "theirs").stat().st_mode)


def test_symbolic_link_stays_a_link(tmp_path):
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    write_atomic(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_full_disk_keeps_the_old_file_and_says_so(tmp_path, monkeypatch, call):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(
        ScaffoldError, match=r"file: could not be written \(No space left on device\).*unchanged.*Free space"
    ):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("problem", [KeyboardInterrupt, ValueError])
def test_interrupted_writer_keeps_the_old_file_and_its_own_exception(tmp_path, problem):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def writer(file):
        file.write(b"half of")
        raise problem

    with pytest.raises(problem):
        write_atomic(path, writer)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_folder_in_the_way_is_named(tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(ScaffoldError, match="taken: could not be written"):
        write_atomic(tmp_path / "taken", b"new")
    (tmp_path / "file").touch()
    with pytest.raises(ScaffoldError, match="file/below: could not be written"):
        write_atomic(tmp_path / "file" / "below", b"new")
    assert sorted(os.listdir(tmp_path)) == ["file", "taken"]


@pytest.mark.parametrize("value", [None, False, 1, []])
def test_folder_of_an_earlier_version_goes_on_with_what_that_version_did(tmp_path, value):
    keep_settings(tmp_path / "settings.json", {"seed": 3})
    keep_settings(tmp_path / "settings.json", {"seed": 3, "new": value})
    assert json.loads((tmp_path / "settings.json").read_text()) == {"seed": 3, "new": value}


@pytest.mark.parametrize("value", [True, 5, "keypoints", ["physics=newton_mjwarp"]])
def test_folder_of_an_earlier_version_is_not_gone_on_with_otherwise(tmp_path, value):
    keep_settings(tmp_path / "settings.json", {"seed": 3})
    with pytest.raises(
        ScaffoldError, match=r"settings\.json: what is here was made by a version that did not note new; got "
    ):
        keep_settings(tmp_path / "settings.json", {"seed": 3, "new": value})
    assert json.loads((tmp_path / "settings.json").read_text()) == {"seed": 3}


def test_folder_keeps_a_setting_that_is_off_too(tmp_path):
    keep_settings(tmp_path / "settings.json", {"oracle": None})
    with pytest.raises(ScaffoldError, match="was made with oracle = None; got keypoints"):
        keep_settings(tmp_path / "settings.json", {"oracle": "keypoints"})
