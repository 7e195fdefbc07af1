"""`scan objects`: several scans at a time make what each makes alone, and one that fails costs no other."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from meshfiles import export
from scaffoldlab.cli import main
from scaffoldlab.errors import ScaffoldError
from scaffoldlab.scan.objects import batch
from scaffoldlab.scan.objects.batch import name_sources
from scaffoldlab.scan.objects.object import ObjectSettings, scan_object
from shapes import book, t_shape, textured


def command(*words):
    return main(["scan", "objects", *map(str, words)])


def test_objects_are_those_of_single_scans_and_garbage_costs_no_other(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    sources = [export(textured(make()), tmp_path / "raw" / f"{make.__name__}.obj") for make in (book, t_shape)]
    garbage = tmp_path / "raw" / "garbage.stl"
    garbage.write_bytes(b"\0\1\2" * 30)
    assert command(*sources, garbage, "--out", tmp_path / "all", "--units", "m", "--engines") == 1
    said = capfd.readouterr().err
    assert "failed" in said and "garbage.stl" in said
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == ["book", "t_shape"]
    settings = ObjectSettings(units="m", engines=())
    for source in sources:
        alone = scan_object(source, source.stem, tmp_path / "alone" / source.stem, settings)
        report = json.loads((tmp_path / "all" / source.stem / "report.json").read_text())
        assert {**report, "seconds": 0, "cached": False} == {**alone, "seconds": 0}
    assert command(*sources, "--out", tmp_path / "all", "--units", "m", "--engines") == 0
    assert capfd.readouterr().err.count("(unchanged)") == 2


def test_scan_that_breaks_in_an_unforeseen_way_costs_no_other(tmp_path, monkeypatch):
    monkeypatch.setattr(batch, "ProcessPoolExecutor", lambda jobs, mp_context: ThreadPoolExecutor(jobs))

    def scan(source, name, *_, **__):
        if name == "bad":
            raise MemoryError("no room")
        return {"name": name}

    monkeypatch.setattr(batch, "scan_object", scan)
    sources = {"bad": Path("bad.obj"), "good": Path("good.obj")}
    made = batch.scan_objects(sources, tmp_path, ObjectSettings())
    assert isinstance(made["bad"], ScaffoldError) and "bad.obj: MemoryError('no room')" in str(made["bad"])
    assert made["good"] == {"name": "good"}


def test_names_are_made_of_files_and_folders(tmp_path):
    (tmp_path / "coffee mug.2").mkdir()
    paths = [Path("scans/red-box.obj"), tmp_path / "coffee mug.2", Path("7up.stl")]
    assert list(name_sources(paths)) == ["red_box", "coffee_mug_2", "_7up"]


def test_two_of_one_name_are_refused():
    with pytest.raises(ScaffoldError, match=r"a/box\.obj and b/box\.stl would both be 'box'.*--name"):
        name_sources([Path("a/box.obj"), Path("b/box.stl")])


def test_no_jobs_are_refused(capsys):
    assert command("a.obj", "--jobs", "0") == 1
    assert "--jobs is 0; allowed: at least 1" in capsys.readouterr().err
