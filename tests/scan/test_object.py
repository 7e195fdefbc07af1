"""scan_object and the command: a folder that simulators load, all of it or nothing, and clear words for bad input."""

import json
import os
import re
from dataclasses import replace

import mujoco
import numpy as np
import pytest
import trimesh
import yaml
from PIL import Image
from pxr import Usd, UsdGeom, UsdPhysics, UsdShade
from scipy.spatial.transform import Rotation

from meshfiles import Y_UP, atlas_textured, colours, export, write_zip
from scaffoldlab.cli import main
from scaffoldlab.errors import ScaffoldError
from scaffoldlab.scan.names import refuse_name
from scaffoldlab.scan.objects import object as scan_module
from scaffoldlab.scan.objects.object import ObjectSettings, examine_object, scan_object
from scaffoldlab.scan.objects.reading import read_scan
from scaffoldlab.scan.objects.report import REPORT
from shapes import SHAPES, book, cup, t_shape, textured

DRY = ObjectSettings(engines=())
BLANK = Image.new("RGB", (8, 8))
TILT = trimesh.transformations.rotation_matrix(0.6, (0, 0, 1)) @ trimesh.transformations.translation_matrix((1, 2, 3))


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def scanned(tmp_path_factory):
    """A letter T with all files: its folder, the report, the mesh it was made from."""
    folder = tmp_path_factory.mktemp("scan")
    mesh = atlas_textured(t_shape().apply_transform(TILT))
    report = scan_object(
        export(mesh, folder / "raw" / "t.obj"), "letter", folder / "letter", replace(DRY, formats=("urdf", "mjcf"))
    )
    return folder / "letter", report, mesh


@pytest.fixture
def short_report(monkeypatch):
    """Without pictures, which take most of the time."""
    for name, value in {"_turntable": "data:,", "_marked": BLANK, "_picture": BLANK}.items():
        monkeypatch.setattr(f"scaffoldlab.scan.objects.report.{name}", lambda *_, value=value: value)


@pytest.fixture
def raw(tmp_path, short_report):
    return export(textured(book()), tmp_path / "raw" / "book.obj")


def command(*words):
    return main(["scan", *map(str, words)])


def kept(folder):
    return sorted(p.name for p in folder.iterdir())


# --- what is written ------------------------------------------------------------------------------------------------


def test_folder_has_everything(scanned):
    files = {"letter.usda", "letter.png", "letter.yaml", "letter.urdf", "letter.xml", "meshes", "thumbnail.png",
             "index.html", "report.json"}  # fmt: skip
    assert set(kept(scanned[0])) == files


def test_report_says_what_was_found(scanned):
    folder, report, mesh = scanned
    on_disk = json.loads((folder / "report.json").read_text())
    assert list(on_disk) == list(REPORT)
    assert report == on_disk | {"cached": False}
    assert report["size_m"] == pytest.approx([0.12, 0.12, 0.03], abs=1e-3)
    assert report["volume_m3"] == pytest.approx(t_shape().volume, rel=1e-3)
    assert report["mass_kg"] == pytest.approx(600 * t_shape().volume, rel=1e-3)
    assert (report["units"], report["scale"], report["watertight"]) == ("m", 1.0, True)
    assert (report["collider"], report["hulls"]) == ("hulls", 2)
    assert report["faces_in"] == len(mesh.faces)
    assert (report["settle_ovphysx"], report["settle_newton"]) == (None, None)
    assert {f["check"] for f in report["findings"]} >= {"units", "texture", "up", "mass", "collider", "holes"}
    assert all(f["severity"] == "ok" for f in report["findings"]), report["findings"]


def tensor_of(body):
    mass = UsdPhysics.MassAPI(body)
    quat = mass.GetPrincipalAxesAttr().Get()
    axes = Rotation.from_quat([*quat.GetImaginary(), quat.GetReal()]).as_matrix()
    return axes @ np.diag(mass.GetDiagonalInertiaAttr().Get()) @ axes.T


def in_body(scanned):
    """The mesh that was scanned, in the body frame of what was written."""
    folder, _, mesh = scanned
    stage = Usd.Stage.Open(str(folder / "letter.usda"))
    numbers = stage.GetRootLayer().customLayerData["file_to_body"]
    return mesh.copy().apply_transform(np.array(numbers.split(), float).reshape(4, 4))


def test_usd_is_a_rigid_body_with_the_true_inertia(scanned):
    stage = Usd.Stage.Open(str(scanned[0] / "letter.usda"))
    body = stage.GetDefaultPrim()
    assert UsdGeom.GetStageMetersPerUnit(stage) == 1
    assert UsdGeom.GetStageUpAxis(stage) == UsdGeom.Tokens.z
    assert body.HasAPI(UsdPhysics.RigidBodyAPI)
    mass = UsdPhysics.MassAPI(body)
    assert mass.GetMassAttr().Get() == pytest.approx(600 * t_shape().volume, rel=1e-3)
    assert tuple(mass.GetCenterOfMassAttr().Get()) == (0, 0, 0)
    truth = trimesh.Trimesh(in_body(scanned).vertices, scanned[2].faces)
    truth.density = 600
    assert truth.center_mass == pytest.approx(np.zeros(3), abs=1e-5)
    assert tensor_of(body) == pytest.approx(truth.moment_inertia, rel=0.01, abs=2e-7)


def test_colliders_of_the_usd_are_hidden_hulls(scanned):
    stage = Usd.Stage.Open(str(scanned[0] / "letter.usda"))
    parts = [p for p in stage.Traverse() if p.HasAPI(UsdPhysics.CollisionAPI)]
    assert len(parts) == 2
    for part in parts:
        assert UsdGeom.Imageable(part).ComputePurpose() == UsdGeom.Tokens.guide
        assert UsdPhysics.MeshCollisionAPI(part).GetApproximationAttr().Get() == "convexHull"
        material, _ = UsdShade.MaterialBindingAPI(part).ComputeBoundMaterial("physics")
        assert UsdPhysics.MaterialAPI(material).GetStaticFrictionAttr().Get() == pytest.approx(0.8)


def test_usd_shows_the_surface_with_its_colours(scanned):
    again = read_scan(scanned[0] / "letter.usda")
    assert again.texture.size == (768, 512)
    points, _ = trimesh.sample.sample_surface(again.mesh, 1000, seed=2)
    assert (colours(again.mesh, points) == colours(in_body(scanned), points)).all(1).mean() > 0.95


def test_usd_names_its_origin(scanned):
    stage = Usd.Stage.Open(str(scanned[0] / "letter.usda"))
    facts = stage.GetRootLayer().customLayerData
    assert facts["source"] == "t.obj"
    assert facts["digest"] == scanned[1]["digest"]
    assert facts["units"].startswith("m: ")
    assert facts["scanner"].startswith("scaffoldlab ")


@pytest.mark.parametrize("name", ["letter.xml", "letter.urdf"])
def test_mujoco_loads_the_same_body(scanned, name):
    model = mujoco.MjModel.from_xml_path(str(scanned[0] / name))
    number = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, "letter")
    assert model.body_mass[number] == pytest.approx(scanned[1]["mass_kg"], rel=1e-6)
    assert np.sort(model.body_inertia[number]) == pytest.approx(scanned[1]["inertia_kg_m2"], rel=1e-4)
    axes = Rotation.from_quat(model.body_iquat[number], scalar_first=True).as_matrix()
    tensor = axes @ np.diag(model.body_inertia[number]) @ axes.T
    stage = Usd.Stage.Open(str(scanned[0] / "letter.usda"))
    assert tensor == pytest.approx(tensor_of(stage.GetDefaultPrim()), rel=1e-4, abs=1e-9)
    solid = (model.geom_contype != 0) & (model.geom_bodyid == number)
    assert solid.sum() == 2


def test_keypoints_are_on_the_surface(scanned):
    points = yaml.safe_load((scanned[0] / "letter.yaml").read_text())["keypoints"]
    assert list(points) == ["+x", "+y", "+z", "-x", "-y", "-z", "tip 1", "tip 2", "tip 3", "tip 4"]
    mesh = in_body(scanned)
    distance = np.abs(trimesh.proximity.closest_point(mesh, np.array(list(points.values())))[1])
    assert distance.max() < 2e-4
    ends = [np.array(points[f"tip {n}"]) for n in (1, 2, 3)]
    assert min(np.linalg.norm(a - b) for a, b in ((ends[0], ends[1]), (ends[1], ends[2]), (ends[0], ends[2]))) > 0.05


def test_keypoints_of_a_ring_are_on_it():
    """The axis through its hole meets nothing."""
    ring = trimesh.creation.torus(0.05, 0.01)
    points = scan_module.keypoint_candidates(ring)
    distance = np.abs(trimesh.proximity.closest_point(ring, np.array(list(points.values())))[1])
    assert distance.max() < 1e-4


def test_page_needs_nothing_else(scanned):
    page = (scanned[0] / "index.html").read_text()
    links = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"')\s>]+)""", page)
    assert links
    assert [link for link in links if not link.startswith(("data:", "#"))] == []


# --- again, and instead ---------------------------------------------------------------------------------------------


def test_same_scan_is_not_made_again(raw, tmp_path, monkeypatch):
    out = tmp_path / "book"
    first = scan_object(raw, "book", out, DRY)
    times = {p: p.stat().st_mtime_ns for p in out.rglob("*")}
    monkeypatch.setattr(scan_module, "_make", None)
    again = scan_object(raw, "book", out, DRY)
    assert again == first | {"cached": True}
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*")} == times


def test_other_settings_are_refused_and_replace_on_demand(raw, tmp_path):
    out = tmp_path / "book"
    scan_object(raw, "book", out, DRY)
    heavy = replace(DRY, mass=1.5)
    with pytest.raises(ScaffoldError, match=r"book: there is a folder with files already.*--overwrite"):
        scan_object(raw, "book", out, heavy)
    assert json.loads((out / "report.json").read_text())["mass_kg"] != 1.5
    assert scan_object(raw, "book", out, heavy, overwrite=True)["mass_kg"] == 1.5
    assert kept(tmp_path) == ["book", "raw"]


def test_folder_of_another_kind_is_left_alone(raw, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "report.json").write_text("[1]")
    with pytest.raises(ScaffoldError, match="--overwrite"):
        scan_object(raw, "book", tmp_path / "mine", DRY)
    assert kept(tmp_path / "mine") == ["report.json"]


def test_interrupt_leaves_nothing_and_the_next_run_works(raw, tmp_path, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    out = tmp_path / "new" / "book"
    for step in ("make_colliders", "write_usd"):
        with monkeypatch.context() as patch:
            patch.setattr(scan_module, step, interrupt)
            with pytest.raises(KeyboardInterrupt):
                scan_object(raw, "book", out, DRY)
        assert not out.parent.exists() or kept(out.parent) == []
    assert scan_object(raw, "book", out, DRY)["cached"] is False


@pytest.mark.parametrize("faces", [12, 8000])
def test_full_disk_is_told_and_leaves_nothing(small_disk, tmp_path, short_report, monkeypatch, capfd, faces):
    """The page does not fit; with many faces the stage does not either."""
    monkeypatch.setattr("scaffoldlab.scan.objects.report._turntable", lambda *_: "data:," + "A" * 200_000)
    mesh = book()
    while len(mesh.faces) < faces:
        mesh = mesh.subdivide()
    raw = export(mesh, tmp_path / "raw.stl")
    (small_disk / "full").write_bytes(bytes(150_000))
    assert command("object", raw, "--name", "book", "--out", small_disk / "book", "--engines") == 1
    error = capfd.readouterr().err
    assert "could not be written" in error
    assert "Free space" in error
    assert kept(small_disk) == ["full"]


# --- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("my.mug", "my_mug"), ("my mug", "my_mug"), ("../mug", "mug"), ("tassé", "tass"), ("杯", "object"),
        ("1mug", "_1mug"), ("", "object"), ("a" * 65, "a" * 64), ("mug\n", "mug"), ("mug-2", "mug_2"),
    ],
)  # fmt: skip
def test_bad_name_is_refused_with_a_good_one(raw, tmp_path, name, good):
    with pytest.raises(ScaffoldError, match=rf"--name .*allowed: letters.*'{good}' would do"):
        scan_object(raw, name, tmp_path / "out", DRY)
    refuse_name(good)
    assert kept(tmp_path) == ["raw"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"density": 0}, {"mass": -1}, {"mass": float("nan")}, {"wall": 1.0}, {"friction": -0.1},
        {"visual_faces": 3}, {"collider_threshold": 0}, {"collider_timeout": 0},
    ],
)  # fmt: skip
def test_settings_have_limits(wrong):
    option = next(iter(wrong)).replace("wall", "hollow").replace("_", "-")
    with pytest.raises(ScaffoldError, match=rf"--{option} is .*; allowed: "):
        ObjectSettings(**wrong)


# --- bad input, through the command line ----------------------------------------------------------------------------


def bad(tmp_path, what):
    path = tmp_path / "raw" / "thing.obj"
    path.parent.mkdir()
    box = trimesh.creation.box((0.1, 0.1, 0.1))
    if what == "empty":
        path.touch()
    elif what == "garbage":
        path = path.with_suffix(".glb")
        path.write_bytes(os.urandom(3000))
    elif what == "no faces":
        path.write_text("v 0 0 0\nv 0 0 1\nv 0 1 0\n")
    elif what == "all NaN":
        path.write_text("v nan nan nan\n" * 3 + "f 1 2 3\n")
    elif what == "triangle":
        path.write_text("v 0 0 0\nv 0 0 0.1\nv 0 0.1 0\nf 1 2 3\n")
    elif what == "sheet":
        export(trimesh.creation.box((0.1, 0.1, 1e-5)).apply_transform(TILT), path)
    elif what == "normalised":
        export(trimesh.creation.box((1, 1, 1)), path)
    elif what == "web page":
        path.write_text("<html><body>Log in</body></html>")
    elif what == "zip bomb":
        path = write_zip(path.with_suffix(".usdz"), {"a.usda": b" " * (32 << 20)}, compressed=True)
    elif what == "picture outside":
        export(atlas_textured(box), path)
        path.with_suffix(".mtl").write_text("newmtl material_0\nmap_Kd ../outside.png\n")
    return path


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("empty", "0 bytes"), ("garbage", "no readable .glb mesh"), ("no faces", "no faces"),
        ("all NaN", "not finite"), ("triangle", "a sheet or less"), ("sheet", "a sheet or less"),
        ("normalised", "--size"), ("web page", "web page"), ("zip bomb", "unpack to"),
        ("picture outside", "outside its folder"),
    ],
)  # fmt: skip
def test_bad_input_ends_with_one_line(tmp_path, capfd, what, words):
    path = bad(tmp_path, what)
    assert command("object", path, "--name", "thing", "--out", tmp_path / "out", "--engines") == 1
    error = capfd.readouterr().err
    assert error.startswith("error: ")
    assert "Traceback" not in error
    assert path.name in error
    assert words in error
    assert len(error.splitlines()) == 1
    assert kept(tmp_path) == ["raw"]
    assert command("doctor", path) == 1


@pytest.mark.parametrize("what", ["inside out", "NaN", "no picture", "picture missing", "two bodies"])
def test_mesh_with_faults_becomes_an_object_all_the_same(tmp_path, short_report, capfd, what):
    mesh = book().subdivide()
    if what == "inside out":
        mesh.invert()
    elif what == "NaN":
        mesh.vertices[10] = np.nan
    elif what == "two bodies":
        mesh = trimesh.util.concatenate([mesh, trimesh.creation.icosphere(1, 0.005).apply_translation((0.3, 0, 0))])
    path = export(textured(mesh) if what == "picture missing" else mesh, tmp_path / "raw" / "thing.obj")
    for picture in path.parent.glob("*.png"):
        picture.unlink()
    assert command("object", path, "--name", "thing", "--out", tmp_path / "out", "--engines") == 0
    assert "object: " in capfd.readouterr().err
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["mass_kg"] == pytest.approx(600 * book().volume, rel=0.05)
    warnings = {f["check"] for f in report["findings"] if f["severity"] == "warning"}
    assert "texture" in warnings


# --- doctor ---------------------------------------------------------------------------------------------------------


def test_doctor_prints_what_it_finds_and_writes_nothing(tmp_path, capfd):
    mesh = book()
    mesh.invert()
    path = export(mesh.apply_scale(1000), tmp_path / "book [1] [red].stl")
    assert command("doctor", path) == 0
    out = capfd.readouterr().err
    assert f"mesh: {path}" in out
    for words in ("units: mm (1 = 0.001 m)", "inside out; turned", "texture: none", "holes: none", "mended by itself"):
        assert words in out
    assert kept(tmp_path) == [path.name]


def test_doctor_names_pictures_with_odd_names(tmp_path, capfd):
    path = export(textured(book()), tmp_path / "book.obj")
    mtl = path.with_suffix(".mtl")
    mtl.write_text(re.sub(r"map_Kd .*", "map_Kd a[/red].png", mtl.read_text()))
    assert command("doctor", path) == 0
    assert "a[/red].png not found" in capfd.readouterr().err


@pytest.mark.parametrize("ending", [".glb", ".ply", ".stl"])
def test_mended_mesh_is_metric_and_upright(tmp_path, ending):
    raw = export(atlas_textured(cup()).apply_transform(Y_UP).apply_scale(1000), tmp_path / "cup.obj")
    fixed = tmp_path / f"fixed{ending}"
    assert command("doctor", raw, "--fix", fixed) == 0
    again = read_scan(fixed)
    mesh = trimesh.Trimesh(again.mesh.vertices, again.mesh.faces)
    assert mesh.volume == pytest.approx(cup().volume, rel=0.01)
    assert mesh.extents[1 if ending == ".glb" else 2] == pytest.approx(0.09, abs=1e-4)
    assert (again.texture is not None) == (ending == ".glb")
    assert {f.severity for f in examine_object(fixed).findings if f.check != "texture"} == {"ok"}


def test_mended_mesh_does_not_replace_the_scan(tmp_path, capfd):
    raw = export(book(), tmp_path / "book.stl")
    before = raw.read_bytes()
    assert command("doctor", raw, "--fix", raw) == 1
    assert "the scan itself" in capfd.readouterr().err
    assert command("doctor", raw, "--fix", tmp_path / "book.obj") == 1
    assert ".glb" in capfd.readouterr().err
    assert raw.read_bytes() == before
    assert kept(tmp_path) == ["book.stl"]


def test_every_shape_is_found_fit_by_the_doctor(tmp_path):
    for name, make in SHAPES.items():
        findings = examine_object(export(textured(make()), tmp_path / f"{name}.glb")).findings
        assert [f for f in findings if f.severity == "error"] == []


@pytest.mark.parametrize("option", ["--up=sideways", "--hollow=0.05"])
def test_doctor_calls_a_wrong_option_what_it_is(tmp_path, capsys, option):
    """It is no finding about the scan."""
    mesh = export(textured(book()), tmp_path / "book.obj")
    assert command("doctor", mesh, "--units", "m", option) == 1
    said = capsys.readouterr()
    assert option.partition("=")[0] in said.err and "Scan it again" not in said.out + said.err
