"""read_scan: every format gives the same surface, BundleSDF's folders the metric one, and bad files a clear refusal."""

import json
import struct

import numpy as np
import pytest
import trimesh
from PIL import Image

from captures import write_bundlesdf_out
from meshfiles import Y_UP, atlas_textured, colours, export, write_reference, write_usd, write_zip
from scaffoldlab.errors import ScaffoldError
from scaffoldlab.scan.objects.reading import BUNDLESDF_CONFIG, read_scan
from shapes import mug, t_shape

T = atlas_textured(t_shape())
TEXTURED = (".obj", ".glb", ".gltf", ".usda", ".usdc", ".usdz")


@pytest.mark.parametrize("ending", [".obj", ".glb", ".gltf", ".ply", ".stl", ".usda", ".usdc", ".usdz"])
def test_every_format_gives_the_same_surface_and_picture(tmp_path, ending):
    scan = read_scan(export(T, tmp_path / f"thing{ending}"))
    assert scan.missing == []
    assert scan.mesh.bounds == pytest.approx(T.bounds, abs=1e-6)
    assert scan.mesh.area == pytest.approx(T.area, rel=1e-5)
    assert scan.mesh.volume == pytest.approx(T.volume, rel=1e-5)
    if ending not in TEXTURED:
        assert scan.texture is None or ending == ".ply"
        return
    assert scan.texture.size == (768, 512)
    points, _ = trimesh.sample.sample_surface(T, 500, seed=1)
    assert (colours(scan.mesh, points) == colours(T, points)).all(1).mean() > 0.98


def test_formats_say_their_unit_and_axis(tmp_path):
    glb = read_scan(export(T.copy().apply_transform(Y_UP), tmp_path / "a.glb"))
    assert (glb.unit, glb.up) == (1.0, "y")
    inches = read_scan(write_usd(T, tmp_path / "b.usda", unit=0.0254, up="Z"))
    assert (inches.unit, inches.up) == (pytest.approx(0.0254), "z")
    assert read_scan(write_usd(T, tmp_path / "c.usdc", unit=0.01, up="Y")).up == "y"
    stl = read_scan(export(T, tmp_path / "d.stl"))
    assert (stl.unit, stl.up) == (None, None)


def test_transforms_of_a_stage_are_applied_and_guides_left_out(tmp_path):
    from pxr import Usd, UsdGeom

    path = write_usd(T, tmp_path / "scaled.usda", scale=0.01)
    assert read_scan(path).mesh.bounds == pytest.approx(T.bounds, abs=1e-6)
    stage = Usd.Stage.Open(str(path))
    UsdGeom.Mesh(stage.GetPrimAtPath("/thing/mesh")).CreatePurposeAttr(UsdGeom.Tokens.guide)
    stage.GetRootLayer().Save()
    with pytest.raises(ScaffoldError, match="no mesh that can be seen"):
        read_scan(path)


def test_several_parts_become_one_with_both_pictures(tmp_path):
    """Left part red, right part green, each with a material of its own."""
    parts = []
    for x, colour in ((-0.1, (255, 0, 0)), (0.1, (0, 255, 0))):
        part = atlas_textured(trimesh.creation.box((0.05, 0.05, 0.05)).apply_translation((x, 0, 0)))
        picture = Image.new("RGB", (64, 64), colour)
        part.visual.material = trimesh.visual.material.PBRMaterial(baseColorTexture=picture)
        parts.append(part)
    trimesh.Scene(parts).export(tmp_path / "both.glb")
    scan = read_scan(tmp_path / "both.glb")
    assert colours(scan.mesh, [[-0.1, 0, 0.025], [0.1, 0, 0.025]]).tolist() == [[255, 0, 0], [0, 255, 0]]


# --- BundleSDF ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundlesdf(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundlesdf") / "out"
    return folder, write_bundlesdf_out(folder, mug(), count=2)


def metric(truth):
    return truth.mesh.copy().apply_transform(truth.pose_ob)


def copy_of(bundlesdf, tmp_path, *names):
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((bundlesdf[0] / name).read_bytes())
    return tmp_path


def test_folder_of_bundlesdf_gives_its_metric_textured_mesh(bundlesdf):
    folder, truth = bundlesdf
    scan = read_scan(folder)
    assert scan.path.name == "textured_mesh.obj"
    assert scan.unit == 1.0
    assert scan.capture == folder
    assert scan.texture is not None
    assert scan.mesh.bounds == pytest.approx(metric(truth).bounds, abs=1e-6)


def test_normalised_mesh_is_undone_exactly(bundlesdf, tmp_path):
    folder = copy_of(bundlesdf, tmp_path, "mesh_cleaned.obj", BUNDLESDF_CONFIG)
    scan = read_scan(folder)
    assert scan.unit == 1.0
    assert "sc_factor 4" in scan.unit_evidence
    np.testing.assert_allclose(scan.mesh.vertices, metric(bundlesdf[1]).vertices, atol=1e-6)


@pytest.mark.parametrize("name", ["mesh_cleaned.obj", "textured_mesh.obj"])
def test_file_of_a_bundlesdf_folder_is_known_as_such(bundlesdf, name):
    scan = read_scan(bundlesdf[0] / name)
    assert scan.unit == 1.0
    assert scan.mesh.bounds == pytest.approx(metric(bundlesdf[1]).bounds, abs=1e-6)


def test_normalised_mesh_without_config_is_refused(bundlesdf, tmp_path):
    with pytest.raises(ScaffoldError, match=r"mesh_cleaned.obj is normalised.*config.yml.*--size"):
        read_scan(copy_of(bundlesdf, tmp_path, "mesh_cleaned.obj"))


@pytest.mark.parametrize(
    "text", ["", "[1, 2]", "sc_factor: 4", "sc_factor: 0\ntranslation: [0, 0, 0]", "sc_factor: 1\ntranslation: [0, 0]",
             "sc_factor: .nan\ntranslation: [0, 0, 0]", "a: [", "\xff"]
)  # fmt: skip
def test_config_that_says_nothing_is_refused(bundlesdf, tmp_path, text):
    copy_of(bundlesdf, tmp_path, "mesh_cleaned.obj", BUNDLESDF_CONFIG)
    (tmp_path / BUNDLESDF_CONFIG).write_bytes(text.encode("latin-1"))
    with pytest.raises(ScaffoldError, match=r"config.yml: .*sc_factor"):
        read_scan(tmp_path)


def test_folder_with_one_mesh_is_that_mesh_and_with_two_a_question(tmp_path):
    export(T, tmp_path / "a.ply")
    assert read_scan(tmp_path).path.name == "a.ply"
    export(T, tmp_path / "b.stl")
    with pytest.raises(ScaffoldError, match=r"got a.ply, b.stl. Give the file"):
        read_scan(tmp_path)


def test_empty_folder_is_refused(tmp_path):
    with pytest.raises(ScaffoldError, match="got none"):
        read_scan(tmp_path)


# --- bad files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".obj", ".glb", ".gltf", ".ply", ".stl", ".usda", ".usdc", ".usdz"])
def test_garbage_and_emptiness_are_refused_by_name(tmp_path, ending):
    path = tmp_path / f"thing{ending}"
    path.touch()
    with pytest.raises(ScaffoldError, match=rf"thing\{ending}: it holds 0 bytes; allowed"):
        read_scan(path)
    path.write_bytes(np.random.default_rng(0).bytes(5000))
    with pytest.raises(ScaffoldError, match=rf"thing\{ending}: "):
        read_scan(path)


@pytest.mark.parametrize("ending", [".obj", ".glb", ".ply", ".stl", ".usda", ".usdc"])
def test_file_that_is_cut_short_is_refused(tmp_path, ending):
    path = export(T, tmp_path / f"thing{ending}")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(ScaffoldError, match=rf"thing\{ending}: "):
        read_scan(path)


def test_missing_file_and_foreign_ending(tmp_path):
    with pytest.raises(ScaffoldError, match=r"no such file or folder. Give a mesh"):
        read_scan(tmp_path / "none.obj")
    (tmp_path / "mesh.fbx").write_bytes(b"x")
    with pytest.raises(ScaffoldError, match=r"got a .fbx file; allowed: .obj.*Export it as"):
        read_scan(tmp_path / "mesh.fbx")


@pytest.mark.parametrize("ending", [".obj", ".glb", ".ply", ".stl"])
def test_web_page_is_told_from_a_mesh(tmp_path, ending):
    path = tmp_path / f"page{ending}"
    path.write_text("\n<!DOCTYPE html><html><body>Sign in</body></html>")
    with pytest.raises(ScaffoldError, match=r"this is a web page, no mesh. Download"):
        read_scan(path)


def test_points_without_faces_are_refused(tmp_path):
    (tmp_path / "points.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\n")
    trimesh.PointCloud(T.vertices).export(tmp_path / "points.ply")
    for name in ("points.obj", "points.ply"):
        with pytest.raises(ScaffoldError, match=f"{name}: .*no faces"):
            read_scan(tmp_path / name)


def test_faces_that_name_points_that_are_not_there_are_refused(tmp_path):
    (tmp_path / "bad.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 9\nf 1 2 3\n")
    with pytest.raises(ScaffoldError, match="bad.obj"):
        read_scan(tmp_path / "bad.obj")


def test_missing_picture_and_material_are_told_and_the_mesh_is_read(tmp_path):
    path = export(T, tmp_path / "thing.obj")
    (picture,) = tmp_path.glob("*.png")
    picture.unlink()
    scan = read_scan(path)
    assert scan.missing == [picture.name]
    assert scan.texture is None
    (tmp_path / "thing.mtl").unlink()
    assert read_scan(path).missing == ["thing.mtl"]


def test_picture_that_is_no_picture_is_told(tmp_path):
    path = export(T, tmp_path / "thing.obj")
    (picture,) = tmp_path.glob("*.png")
    picture.write_bytes(b"no picture")
    scan = read_scan(path)
    assert scan.texture is None
    assert scan.missing == [picture.name]


def test_picture_with_a_space_in_its_name_is_found(tmp_path):
    path = export(T, tmp_path / "thing.obj")
    (picture,) = tmp_path.glob("*.png")
    picture.rename(tmp_path / "my picture.png")
    mtl = tmp_path / "thing.mtl"
    mtl.write_text(mtl.read_text().replace(picture.name, "my picture.png"))
    assert read_scan(path).texture is not None


@pytest.mark.parametrize("name", ["../outside.png", "/etc/hostname", "..\\outside.png"])
def test_material_that_leaves_the_folder_is_refused(tmp_path, name):
    path = export(T, tmp_path / "in" / "thing.obj")
    (picture,) = path.parent.glob("*.png")
    (tmp_path / "outside.png").write_bytes(picture.read_bytes())
    mtl = path.with_suffix(".mtl")
    mtl.write_text(mtl.read_text().replace(picture.name, name))
    with pytest.raises(ScaffoldError, match=r"thing.obj: it names .*, outside its folder. Refused"):
        read_scan(path)


@pytest.mark.parametrize("which", ["buffers", "images"])
def test_gltf_that_leaves_the_folder_is_refused(tmp_path, which):
    path = export(T, tmp_path / "in" / "thing.gltf")
    tree = json.loads(path.read_text())
    tree[which][0] = {"uri": "../secret.bin"} | {k: v for k, v in tree[which][0].items() if k == "byteLength"}
    path.write_text(json.dumps(tree))
    (tmp_path / "secret.bin").write_bytes(b"secret")
    with pytest.raises(ScaffoldError, match=r"'\.\./secret.bin', outside its folder. Refused"):
        read_scan(path)


def test_stage_whose_picture_leaves_the_folder_is_refused(tmp_path):
    path = export(T, tmp_path / "in" / "thing.usda")
    (tmp_path / "in" / "thing.png").rename(tmp_path / "thing.png")
    path.write_text(path.read_text().replace("./thing.png", "../thing.png"))
    with pytest.raises(ScaffoldError, match="outside its folder. Refused"):
        read_scan(path)


def test_stage_whose_reference_leaves_the_folder_is_refused(tmp_path):
    export(T, tmp_path / "secret.usdc")
    path = write_reference(tmp_path / "in" / "thing.usda", "../secret.usdc")
    with pytest.raises(ScaffoldError, match=r"thing.usda: it names '.*secret.usdc', outside its folder. Refused"):
        read_scan(path)


@pytest.mark.parametrize("ending", [".usdc", ".usdz"])
def test_stage_may_refer_to_files_beside_it(tmp_path, ending):
    export(T, tmp_path / f"part{ending}")
    scan = read_scan(write_reference(tmp_path / "thing.usda", f"./part{ending}"))
    assert scan.mesh.bounds == pytest.approx(T.bounds, abs=1e-6)
    assert scan.texture is not None


@pytest.mark.parametrize("ending", [".obj", ".glb", ".usda", ".usdz"])
def test_picture_of_more_pixels_than_any_is_told_and_left_out(tmp_path, monkeypatch, ending):
    path = export(T, tmp_path / f"thing{ending}")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    scan = read_scan(path)
    assert scan.texture is None
    assert len(scan.mesh.faces) == len(T.faces)


def test_package_that_unpacks_to_more_than_it_holds_is_refused(tmp_path):
    bomb = write_zip(tmp_path / "bomb.usdz", {"thing.usda": b"#usda 1.0\n" + b" " * (64 << 20)}, compressed=True)
    with pytest.raises(ScaffoldError, match=r"bomb.usdz: its \d+ bytes unpack to 67108874; .*Refused"):
        read_scan(bomb)


@pytest.mark.parametrize("name", ["../evil.png", "/evil.png", "a/../../evil.png"])
def test_package_with_a_way_out_is_refused(tmp_path, name):
    path = write_zip(tmp_path / "thing.usdz", {"thing.usda": b"#usda 1.0\n", name: b"x"})
    with pytest.raises(ScaffoldError, match="a path that leaves its folder"):
        read_scan(path)


def test_header_of_an_stl_that_promises_more_than_there_is(tmp_path):
    (tmp_path / "liar.stl").write_bytes(bytes(80) + struct.pack("<I", 2**31) + bytes(500))
    with pytest.raises(ScaffoldError, match="liar.stl"):
        read_scan(tmp_path / "liar.stl")
