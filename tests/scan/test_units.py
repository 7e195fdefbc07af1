"""decide_units: the scale of a scan is found where anything tells it, and asked for where nothing does."""

import numpy as np
import pytest
import trimesh

from captures import REAL_FAULTS, tabletop, write_bundlesdf_out, write_capture
from meshfiles import export, write_usd
from scaffoldlab.errors import ScaffoldError
from scaffoldlab.scan.objects.reading import METRES, read_scan
from scaffoldlab.scan.objects.units import decide_units
from shapes import SHAPES, mug

LONGEST = {name: float(np.ptp(make().bounds, axis=0).max()) for name, make in SHAPES.items()}


def written(path, unit, mesh=None, header=""):
    """A file in some unit, with a comment in it."""
    mesh = (mesh or mug()).copy().apply_scale(1 / METRES[unit])
    export(mesh, path)
    if header and path.suffix == ".obj":
        path.write_text(f"{header}\n{path.read_text()}")
    elif header and path.suffix == ".ply":
        path.write_bytes(path.read_bytes().replace(b"comment ", f"comment {header}\ncomment ".encode(), 1))
    elif header:
        path.write_bytes(header.encode().ljust(80)[:80] + path.read_bytes()[80:])
    return path


def decide(path, **options):
    return decide_units(read_scan(path), **options)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("unit", ["m", "mm"])
def test_metres_and_millimetres_are_told_by_size(tmp_path, shape, unit):
    units = decide(written(tmp_path / "thing.stl", unit, SHAPES[shape]()))
    assert units.name == unit
    assert units.scale == pytest.approx(METRES[unit], rel=0.005)
    assert units.finding.severity == "ok"


@pytest.mark.parametrize("shape", SHAPES)
def test_centimetres_are_told_by_size(tmp_path, shape):
    units = decide(written(tmp_path / "thing.obj", "cm", SHAPES[shape]()))
    assert units.name == "cm"
    assert units.finding.severity in ("ok", "warning")


def test_doubtful_size_is_a_warning_that_names_the_others(tmp_path):
    """A longest side of 30 is 30 cm, 3 cm in millimetres, or 76 cm in inches."""
    units = decide(written(tmp_path / "thing.stl", "cm", trimesh.creation.box((0.3, 0.2, 0.1))))
    assert units.finding.severity == "warning"
    text = f"{units.finding.seen} {units.finding.fix}"
    for word in ("30 cm", "3 cm", "76.2 cm", "--units inch", "--size", "times less likely"):
        assert word in text


@pytest.mark.parametrize("shape", ["mug", "cup", "t_shape"])
def test_inches_without_a_word_are_never_taken_for_sure(tmp_path, shape):
    units = decide(written(tmp_path / "thing.stl", "inch", SHAPES[shape]()))
    assert units.finding.severity == "warning"
    assert units.name == "inch" or "--units inch" in units.finding.fix


@pytest.mark.parametrize("unit", ["m", "mm", "cm", "inch"])
@pytest.mark.parametrize(
    ("name", "extents"),
    [("mug_2", (0.12, 0.09, 0.1)), ("RedScissors", (0.19, 0.08, 0.01)), ("my.left-shoe", (0.11, 0.3, 0.12))],
)
def test_name_tells_every_unit(tmp_path, name, extents, unit):
    """4.7 is 12 cm in inches, as a mug is, and 4.7 cm in centimetres, as no mug is."""
    units = decide(written(tmp_path / f"{name}.stl", unit, trimesh.creation.box(extents)))
    assert (units.name, units.finding.severity) == (unit, "ok")
    assert units.scale == pytest.approx(METRES[unit], rel=0.005)


def test_given_name_comes_before_the_file_s(tmp_path):
    path = written(tmp_path / "export_7.stl", "inch", trimesh.creation.box((0.12, 0.09, 0.1)))
    assert decide(path, name="mug").name == "inch"


@pytest.mark.parametrize("name", ["apple_on_plate", "giant", "mugshot"])
def test_name_that_tells_nothing_is_passed_over(tmp_path, name):
    """A box of 30 cm, called by two things, by none, or by what only begins like one."""
    units = decide(written(tmp_path / f"{name}.stl", "mm", trimesh.creation.box((0.3, 0.2, 0.1))))
    assert units.name == "mm" and " of a " not in units.evidence


def test_thing_that_is_not_what_it_is_called_is_judged_by_size_alone(tmp_path):
    """1 m in metres, 1 mm in millimetres, 1 cm or 2.5 cm: no pan."""
    units = decide(written(tmp_path / "pan.stl", "m", trimesh.creation.box((1.1, 0.5, 0.2))))
    assert units.name == "m" and " of a " not in units.evidence


@pytest.mark.parametrize(
    ("name", "header", "unit"),
    [
        ("a.obj", "# units: inches", "inch"), ("a.obj", "# Units = in", "inch"), ("a.obj", "# unit mm", "mm"),
        ("a.obj", "# unit sphere\n# File units = centimeters", "cm"), ("a.ply", "units: millimetres", "mm"),
        ("a.ply", "units are in feet", "foot"), ("a.stl", "exported; UNITS=mm", "mm"),
        ("a.stl", "unit: inch", "inch"), ("a.obj", "# all units in metres", "m"),
    ],
)  # fmt: skip
def test_header_says_the_unit(tmp_path, name, header, unit):
    units = decide(written(tmp_path / name, unit, header=header))
    assert units.scale == pytest.approx(METRES[unit])
    assert "header says" in units.evidence


@pytest.mark.parametrize("header", ["# communities in metre", "# units: parsec", "# unit\nv 0 0 0"])
def test_header_that_says_no_unit_is_passed_over(tmp_path, header):
    assert read_scan(written(tmp_path / "a.obj", "m", header=header)).unit is None


@pytest.mark.parametrize("unit", [1.0, 0.01, 0.001, 0.0254])
def test_stage_says_its_unit(tmp_path, unit):
    path = write_usd(mug().apply_scale(1 / unit), tmp_path / "a.usda", unit=unit)
    assert decide(path).scale == pytest.approx(unit, rel=1e-5)


def test_capture_beside_the_mesh_tells_even_inches(tmp_path):
    """A mug of 9 cm; 3.5 alone would be taken for centimetres."""
    write_capture(tabletop(3, objects=("mug",), count=4, distance=0.5), tmp_path, faults=REAL_FAULTS, masks="one")
    for unit in ("m", "mm", "cm", "inch"):
        path = written(tmp_path / "mug.ply", unit)
        units = decide(path)
        assert units.name == unit
        assert "capture beside it" in units.evidence


def test_capture_beside_a_mesh_of_no_unit_says_about_how_large_it_is(tmp_path):
    write_capture(tabletop(3, objects=("mug",), count=4, distance=0.5), tmp_path, masks="one")
    units = decide(export(mug().apply_scale(7), tmp_path / "mug.ply"))  # 0.8
    assert units.finding.severity == "error"
    about = float(units.finding.fix.split("about ")[1].split(" cm")[0])
    assert about == pytest.approx(100 * LONGEST["mug"], rel=0.25)


def test_capture_that_cannot_be_read_is_no_reason_to_stop(tmp_path):
    (tmp_path / "depth").mkdir()
    assert decide(written(tmp_path / "a.stl", "mm")).name == "mm"


def test_normalised_mesh_with_its_config_is_metric(tmp_path):
    truth = write_bundlesdf_out(tmp_path, mug(), count=1)
    (tmp_path / "textured_mesh.obj").unlink()
    (tmp_path / "mesh" / "mesh_real_scale.obj").unlink()
    scan = read_scan(tmp_path)
    assert scan.path.name == "mesh_cleaned.obj"
    assert decide_units(scan).scale == 1.0
    extents = truth.mesh.copy().apply_transform(truth.pose_ob).extents
    assert scan.mesh.extents == pytest.approx(extents, rel=0.005)


@pytest.mark.parametrize("longest", [1.0, 2.0])
def test_unit_box_is_an_error_that_asks_for_the_size(tmp_path, longest):
    mesh = mug().apply_scale(longest / LONGEST["mug"])
    finding = decide(export(mesh, tmp_path / "a.obj")).finding
    assert finding.severity == "error"
    assert "normalised" in finding.seen
    assert "--size" in finding.fix
    assert "a mug is about 0.11 m long" in decide(tmp_path / "a.obj", name="mug").finding.fix
    assert decide(tmp_path / "a.obj", size=0.12).scale == pytest.approx(0.12 / longest)
    assert decide(tmp_path / "a.obj", given="m").scale == 1.0


def test_what_the_user_says_comes_first(tmp_path):
    path = written(tmp_path / "a.obj", "mm", header="# units: mm")
    assert decide(path, given="cm").name == "cm"
    assert decide(path, given="cm", size=0.2).scale == pytest.approx(0.2 / (1000 * LONGEST["mug"]))


@pytest.mark.parametrize("size", [0.0, -1.0, np.nan, np.inf])
def test_size_has_to_be_a_length(tmp_path, size):
    with pytest.raises(ScaffoldError, match=r"--size .*: allowed: a positive length"):
        decide(written(tmp_path / "a.stl", "m"), size=size)


def test_unknown_unit_names_those_there_are(tmp_path):
    with pytest.raises(ScaffoldError, match="--units yard: allowed: auto, m, dm, cm"):
        decide(written(tmp_path / "a.stl", "m"), given="yard")


def test_size_no_hand_could_hold_is_a_warning(tmp_path):
    finding = decide(written(tmp_path / "a.stl", "m"), given="inch").finding
    assert finding.severity == "warning"
    assert "--size" in finding.fix


def test_points_that_are_not_finite_do_not_hide_the_size(tmp_path):
    mesh = mug()
    mesh.vertices[5] = np.nan
    assert decide(export(mesh, tmp_path / "a.obj")).name == "m"


def test_mesh_in_one_place_is_refused(tmp_path):
    (tmp_path / "a.obj").write_text("v 1 1 1\nv 1 1 1\nv 1 1 1\nf 1 2 3\n")
    with pytest.raises(ScaffoldError, match="all points are in one place"):
        decide(tmp_path / "a.obj")
