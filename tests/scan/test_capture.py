"""Captures of known truth are read back: points lie on the true surfaces, units are found, bad folders are refused."""

import json
import shutil

import numpy as np
import pytest
import trimesh
import yaml
from PIL import Image

from captures import (
    DEPTH_UNITS,
    REAL_FAULTS,
    Faults,
    tabletop,
    write_bundlesdf_out,
    write_capture,
    write_depth,
    write_exr,
    write_image,
    write_matrix,
    write_record3d,
)
from scaffoldlab.errors import ScaffoldError
from scaffoldlab.scan.captures.capture import read_capture
from shapes import SHAPES


@pytest.fixture(scope="module")
def truth():
    return tabletop(0, count=4)


@pytest.fixture(scope="module")
def written(truth, tmp_path_factory):
    folder = tmp_path_factory.mktemp("written") / "capture"
    write_capture(truth, folder, layout="foundationpose")
    return folder


@pytest.fixture
def folder(written, tmp_path):
    return shutil.copytree(written, tmp_path / "capture")


def lifted(frame, mask=None):
    """World points of every pixel with depth [m], shape (N, 3)."""
    image = frame.image()
    row, column = np.nonzero((image.depth > 0) if mask is None else (image.depth > 0) & mask)
    return image.lift(np.column_stack((column, row)) + 0.5)


@pytest.mark.parametrize("layout", ["moving", "cameras", "foundationpose", "still"])
def test_lifted_points_lie_on_the_true_surfaces(layout, tmp_path):
    truth = tabletop(1, cameras={"cameras": "fixed", "still": "still"}.get(layout, "orbit"), count=3)
    names = write_capture(truth, tmp_path, layout=layout)
    capture = read_capture(tmp_path)
    assert [f.name for f in capture.frames] == names
    assert capture.posed
    for frame in capture.frames:
        points = lifted(frame)
        assert len(points) > 5000
        assert truth.distance(points).max() < 0.002


def test_polycam_has_its_world_turned_to_z_up_and_its_camera_to_opencv(tmp_path):
    truth = tabletop(2, count=3)
    write_capture(truth, tmp_path, layout="polycam")
    capture = read_capture(tmp_path)
    assert capture.posed and capture.depth_unit == 0.001
    for frame in capture.frames:
        assert frame.image().rgb.shape == (120, 160, 3)
        assert truth.distance(lifted(frame)).max() < 0.002
    assert [f.name for f in read_capture(tmp_path / "keyframes").frames] == ["000000", "000001", "000002"]


def test_polycam_improved_poses_are_preferred(tmp_path):
    write_capture(tabletop(2, count=3), tmp_path, layout="polycam")
    keyframes = tmp_path / "keyframes"
    for name in ("images", "cameras"):
        shutil.copytree(keyframes / name, keyframes / f"corrected_{name}")
        next(iter(sorted((keyframes / f"corrected_{name}").iterdir()))).unlink()
    capture = read_capture(tmp_path)
    assert [f.name for f in capture.frames] == ["000001", "000002"]
    assert capture.frames[0].rgb.parent.name == "corrected_images"


def test_masks_and_object_poses_are_those_of_the_objects(truth, folder):
    capture = read_capture(folder)
    assert capture.object_names == ["book", "mug"]
    for frame in capture.frames:
        for name, (mesh, pose_wb) in truth.objects.items():
            np.testing.assert_allclose(frame.camera.pose_ec @ frame.object_poses[name], pose_wb, atol=1e-9)
            points_w = lifted(frame, frame.mask(name))
            points_b = trimesh.transform_points(points_w, np.linalg.inv(pose_wb))
            low, high = mesh.bounds
            assert (points_b > low - 0.003).all() and (points_b < high + 0.003).all()


def beside(truth, folder, stems, scale=2):
    """Masks of pictures with more pixels than the depth, and poses, as other programs write them there."""
    for index, stem in enumerate(stems):
        for name, mask in truth.picture(index).masks.items():
            pixels = np.where(mask, np.uint8(255), np.uint8(0)).repeat(scale, 0).repeat(scale, 1)
            write_image(folder / "masks" / name / f"{stem}.png", pixels)
            pose = np.linalg.inv(truth.cameras[index].pose_ec) @ truth.objects[name][1]
            write_matrix(folder / "ob_in_cam" / name / f"{stem}.txt", pose)


@pytest.mark.parametrize("app", ["Polycam", "Record3D"])
def test_masks_and_object_poses_lie_beside_what_an_app_wrote(truth, tmp_path, app):
    if app == "Polycam":
        beside(truth, tmp_path / "keyframes", write_capture(truth, tmp_path, layout="polycam"))
    else:
        write_record3d(truth, tmp_path)
        beside(truth, tmp_path, range(len(truth.cameras)))
    capture = read_capture(tmp_path)
    assert capture.layout.startswith(app) and capture.object_names == ["book", "mug"]
    for index, frame in enumerate(capture.frames):
        for name, mask in truth.picture(index).masks.items():
            assert (frame.mask(name) == mask).all()
            pose = frame.camera.pose_ec @ frame.object_poses[name]
            np.testing.assert_allclose(pose, truth.objects[name][1], atol=1e-6)


def test_mask_of_another_shape_beside_keyframes_is_refused(truth, tmp_path):
    (stem, *_) = write_capture(truth, tmp_path, layout="polycam")
    write_image(tmp_path / "keyframes" / "masks" / f"{stem}.png", np.ones((240, 240), np.uint8))
    with pytest.raises(ScaffoldError, match=r"240 x 240 pixels, but 000000\.jpg has 320 x 240; allowed: a mask"):
        read_capture(tmp_path)


def test_colours_are_those_of_the_picture(truth, folder):
    frame = read_capture(folder).frames[2]
    np.testing.assert_array_equal(frame.image().rgb, truth.picture(2).rgb)


def test_bundlesdf_output_has_intrinsics_scaled_to_its_images_and_poses_of_its_frame(tmp_path):
    mesh = SHAPES["mug"]()
    truth = write_bundlesdf_out(tmp_path, mesh, count=3)
    capture = read_capture(tmp_path)
    assert capture.layout == "BundleSDF's output" and not capture.posed
    assert np.loadtxt(tmp_path / "cam_K.txt")[0, 0] == pytest.approx(4 * capture.frames[0].camera.intrinsics[0, 0])
    for frame, pose_cb in zip(capture.frames, truth.poses_cb, strict=True):
        pose_cb_read = frame.object_poses["object"] @ truth.pose_ob
        np.testing.assert_allclose(pose_cb_read, pose_cb, atol=1e-9)
        points_b = trimesh.transform_points(lifted(frame, frame.mask("object")), np.linalg.inv(pose_cb))
        assert (points_b > mesh.bounds[0] - 0.003).all() and (points_b < mesh.bounds[1] + 0.003).all()


def test_bundlesdf_meshes_are_one_shape_in_two_scales(tmp_path):
    truth = write_bundlesdf_out(tmp_path, SHAPES["mug"](), count=1, sc_factor=3.5)
    real = trimesh.load(tmp_path / "textured_mesh.obj", force="mesh")
    cleaned = trimesh.load(tmp_path / "mesh_cleaned.obj", force="mesh")
    config = yaml.safe_load((tmp_path / "final/nerf/config.yml").read_text())
    back = cleaned.bounds / config["sc_factor"] - config["translation"]
    np.testing.assert_allclose(back, real.bounds, atol=1e-6)
    body = real.copy().apply_transform(np.linalg.inv(truth.pose_ob))
    np.testing.assert_allclose(body.bounds, truth.mesh.bounds, atol=1e-6)
    assert real.visual.material.image is not None
    whole = trimesh.load(tmp_path / "mesh/mesh_real_scale.obj", force="mesh")
    assert len(whole.faces) > len(trimesh.load(tmp_path / "mesh/mesh_biggest_component.obj", force="mesh").faces)


def test_bundlesdf_intrinsics_at_the_images_size_stay(tmp_path):
    write_bundlesdf_out(tmp_path, SHAPES["mug"](), count=1)
    rescaled = read_capture(tmp_path).frames[0].camera.intrinsics
    intrinsics = np.loadtxt(tmp_path / "cam_K.txt")
    intrinsics[:2] /= 4
    write_matrix(tmp_path / "cam_K.txt", intrinsics)
    np.testing.assert_allclose(read_capture(tmp_path).frames[0].camera.intrinsics, rescaled)


def test_principal_point_of_a_real_lens_is_no_other_size(tmp_path):
    write_bundlesdf_out(tmp_path, SHAPES["mug"](), count=1)
    intrinsics = np.loadtxt(tmp_path / "cam_K.txt")
    intrinsics[0, 2] *= 1.12
    write_matrix(tmp_path / "cam_K.txt", intrinsics)
    found = read_capture(tmp_path).frames[0].camera.intrinsics
    np.testing.assert_allclose(found[:2, :2], intrinsics[:2, :2] / 4)
    np.testing.assert_allclose(found[:2, 2], intrinsics[:2, 2] / 4 + 0.5)


@pytest.mark.parametrize(
    ("how", "channel", "error"), [("exr", "Y", 1e-6), ("exr", "Z", 1e-6), ("exr", "RGB", 1e-6), ("half", "V", 1e-3)]
)
def test_depth_in_exr_is_read(truth, how, channel, error, tmp_path):
    write_capture(truth, tmp_path, layout="moving")
    for path in (tmp_path / "depth").iterdir():
        path.unlink()
    for index in range(len(truth.cameras)):
        depth = truth.picture(index).depth.astype(np.float32 if how == "exr" else np.float16)
        depth = np.where(depth > 0, depth, np.inf)
        channels = {channel: np.stack([depth] * 3, -1) if channel == "RGB" else depth}
        if channel == "Z":
            channels["RGBA"] = np.zeros((*depth.shape, 4), np.float32)
        write_exr(tmp_path / f"depth/{index:06d}.exr", channels)
    capture = read_capture(tmp_path)
    assert capture.depth_unit == 1.0
    for index, frame in enumerate(capture.frames):
        np.testing.assert_allclose(frame.image().depth, truth.picture(index).depth, atol=error)


@pytest.mark.parametrize("how", DEPTH_UNITS)
def test_depth_unit_is_found_where_cameras_move(truth, how, tmp_path):
    write_capture(truth, tmp_path, layout="moving", depth=how, faults=REAL_FAULTS)
    capture = read_capture(tmp_path)
    assert capture.depth_unit == DEPTH_UNITS[how] and capture.depth_unit_is_sure, capture.depth_evidence


def test_depth_unit_is_millimetres_and_unsure_where_nothing_tells(truth, tmp_path):
    write_capture(truth, tmp_path, layout="tree", depth="tum")  # at 0.66 m; the same numbers are 3.3 m in mm
    capture = read_capture(tmp_path)
    assert capture.depth_unit == 1e-3 and not capture.depth_unit_is_sure
    assert "it could also be 0.66 m in 1/5000 m (TUM)" in capture.depth_evidence


def test_depth_unit_is_found_by_multiples_of_millimetres(truth, tmp_path):
    write_capture(truth, tmp_path, layout="tree")
    for path in (tmp_path / "depth").iterdir():
        Image.fromarray(np.array(Image.open(path)) * np.uint16(5)).save(path)
    capture = read_capture(tmp_path)
    assert capture.depth_unit == 1 / 5000 and "multiple of 5" in capture.depth_evidence


def test_depth_unit_is_found_by_tracked_objects(folder):
    shutil.rmtree(folder / "cam_in_world")
    for path in (folder / "depth").iterdir():
        raw = np.array(Image.open(path)).astype(int)
        Image.fromarray(np.where(raw > 0, 5 * raw + 1, 0).astype(np.uint16)).save(path)
    capture = read_capture(folder)
    assert capture.depth_unit == 1 / 5000 and "tracked objects" in capture.depth_evidence


def test_depth_unit_that_is_given_is_taken(folder):
    capture = read_capture(folder, depth_unit=0.002)
    assert capture.depth_unit == 0.002 and capture.depth_evidence == "0.002 m was given"
    assert np.median(capture.frames[0].image().depth) > 1


def test_reading_with_a_given_unit_reads_no_pixels(folder):
    for path in (*folder.glob("rgb/*"), *folder.glob("depth/*"), *folder.glob("masks/*/*")):
        path.write_bytes(path.read_bytes()[:2000])
    frame = read_capture(folder, depth_unit=0.001).frames[0]
    with pytest.raises(ScaffoldError, match="not readable as an image"):
        frame.image()
    with pytest.raises(ScaffoldError, match="no mask of 'cup'; allowed: book, mug"):
        frame.mask("cup")


def test_frames_are_in_the_order_of_their_numbers(truth, tmp_path):
    write_capture(truth, tmp_path, layout="tree")
    for place in (tmp_path / "rgb", tmp_path / "depth", tmp_path / "masks/mug", tmp_path / "masks/book"):
        for index, path in enumerate(sorted(place.iterdir())):
            path.rename(place / f"{(9, 10, 8, 100)[index]}{path.suffix}")
    assert [f.name for f in read_capture(tmp_path).frames] == ["8", "9", "10", "100"]


def test_one_object_needs_no_folder_of_masks_or_poses(truth, folder):
    for kind in ("masks", "ob_in_cam"):
        shutil.rmtree(folder / kind / "book")
        for path in (folder / kind / "mug").iterdir():
            path.rename(folder / kind / path.name)
        (folder / kind / "mug").rmdir()
    (folder / "masks" / "._000000.png").write_bytes(b"of another system")
    capture = read_capture(folder)
    assert capture.object_names == ["object"] and len(capture.frames[0].object_poses) == 1


def test_poses_beside_the_images_are_found_by_the_folder_of_the_object(folder):
    for name in ("mug", "book"):
        (folder / name).mkdir()
        (folder / "ob_in_cam" / name).rename(folder / name / "ob_in_cam")
    (folder / "ob_in_cam").rmdir()
    assert set(read_capture(folder).frames[0].object_poses) == {"mug", "book"}


def test_mask_of_several_channels_ignores_alpha(folder):
    path = folder / "masks/mug/000000.png"
    mask = np.array(Image.open(path)) > 0
    rgba = np.stack((0 * mask, mask, 0 * mask, 255 + 0 * mask), -1).astype(np.uint8)
    Image.fromarray(rgba).save(path)
    np.testing.assert_array_equal(read_capture(folder).frames[0].mask("mug"), mask)


def test_depth_that_is_not_finite_or_negative_is_nothing(truth, tmp_path):
    write_capture(truth, tmp_path, layout="tree", depth="npy")
    path = tmp_path / "depth/000000.npy"
    depth = np.load(path)
    depth[0, :3] = np.nan, np.inf, -1
    np.save(path, depth)
    assert not read_capture(tmp_path).frames[0].image().depth[0, :3].any()


def edit_matrix(path, change):
    matrix = np.loadtxt(path)
    change(matrix)
    np.savetxt(path, matrix)


def resize(path, size):
    Image.open(path).resize(size, Image.Resampling.NEAREST).save(path)


def outside(path, other):
    shutil.move(path, other)
    path.symlink_to(other)


def set_to(path, value):
    path.write_text(value)


BAD = {
    "no depth": (lambda d: shutil.rmtree(d / "depth"), ["depth: no frames"]),
    "no images": (lambda d: [p.unlink() for p in (d / "rgb").iterdir()], ["rgb: no frames"]),
    "no layout": (lambda d: shutil.rmtree(d / "rgb"), ["no capture", "rgb/", "Polycam"]),
    "stems": (lambda d: (d / "depth/000001.png").rename(d / "depth/1.png"), ["depth: 1 of 5", "000001"]),
    "more depth": (lambda d: write_depth(d / "depth/9", np.ones((120, 160)), "mm"), ["rgb: 1 of 5", "e.g. 9"]),
    "twice": (lambda d: shutil.copy(d / "rgb/000001.png", d / "rgb/000001.jpg"), ["both 000001.jpg and 000001.png"]),
    "mask stems": (
        lambda d: [p.rename(p.with_stem("m" + p.stem)) for p in (d / "masks/mug").iterdir()],
        ["masks/mug: 4 masks, none"],
    ),
    "masks mixed": (lambda d: shutil.copy(d / "masks/mug/000000.png", d / "masks"), ["book, mug", "side by side"]),
    "no K": (lambda d: (d / "cam_K.txt").unlink(), ["cam_K.txt: missing", "3 x 3"]),
    "K of NaN": (lambda d: set_to(d / "cam_K.txt", "nan 0 80 0 90 60 0 0 1"), ["cam_K.txt: got", "fx 0 cx"]),
    "K of words": (lambda d: set_to(d / "cam_K.txt", "fx=90"), ["cam_K.txt", "3 x 3 numbers"]),
    "K of another size": (
        lambda d: edit_matrix(d / "cam_K.txt", lambda k: np.multiply(k[:2], 4, out=k[:2])),
        ["about 636 x 476", "160 x 120", "multiply its first two rows by 0.25"],
    ),
    "K of a wider image": (
        lambda d: edit_matrix(d / "cam_K.txt", lambda k: k.__setitem__((0, 2), 106)),
        ["cam_K.txt: the principal point (106, 59.5)", "about 212 x 119", "have 160 x 120", "Write the K of these"],
    ),
    "K of a larger and wider image": (
        lambda d: edit_matrix(d / "cam_K.txt", lambda k: np.multiply(k[:2], ((3,), (2.25,)), out=k[:2])),
        ["about 477 x 268", "have 160 x 120"],
    ),
    "K of an image on its side": (
        lambda d: edit_matrix(d / "cam_K.txt", lambda k: k.__setitem__((slice(2), 2), (59.5, 79.5))),
        ["about 119 x 159", "have 160 x 120"],
    ),
    "depth size": (lambda d: resize(d / "depth/000002.png", (80, 60)), ["depth/000002.png: 80 x 60", "160 x 120"]),
    "mask size": (lambda d: resize(d / "masks/mug/000002.png", (80, 60)), ["masks/mug/000002.png: 80 x 60"]),
    "frame size": (
        lambda d: [resize(p, (80, 60)) for p in sorted(d.rglob("000003.png"))],
        ["000003.png: 80 x 60", "one size"],
    ),
    "depth of 8 bits": (
        lambda d: Image.new("L", (160, 120)).save(d / "depth/000001.png"),
        ["000001.png: got an image of mode L", "16 bit"],
    ),
    "no image": (lambda d: set_to(d / "rgb/000001.png", "<html>"), ["rgb/000001.png: not readable"]),
    "empty depth": (lambda d: set_to(d / "depth/000001.png", ""), ["depth/000001.png: not readable"]),
    "no camera pose": (lambda d: (d / "cam_in_world/000003.txt").unlink(), ["1 of 4 poses are missing", "000003.txt"]),
    "camera pose twice": (
        lambda d: shutil.copy(d / "cam_in_world/000003.txt", d / "cam_in_world.txt"),
        ["both cam_in_world.txt and cam_in_world/"],
    ),
    "camera pose of NaN": (
        lambda d: edit_matrix(d / "cam_in_world/000001.txt", lambda m: m.fill(np.nan)),
        ["cam_in_world/000001.txt", "not finite"],
    ),
    "camera pose with a scale": (
        lambda d: edit_matrix(d / "cam_in_world/000001.txt", lambda m: np.multiply(m[:3], 2, out=m[:3])),
        ["cam_in_world/000001.txt", "rotation part is off"],
    ),
    "object pose of words": (lambda d: set_to(d / "ob_in_cam/mug/000001.txt", "lost"), ["000001.txt", "4 x 4 numbers"]),
    "object pose stems": (
        lambda d: [p.rename(p.with_stem("m" + p.stem)) for p in (d / "ob_in_cam/mug").iterdir()],
        ["ob_in_cam/mug: no pose file", "000000.txt"],
    ),
    "file outside": (lambda d: outside(d / "rgb/000001.png", d.parent / "other.png"), ["is a link to", "other.png"]),
    "folder outside": (lambda d: outside(d / "depth", d.parent / "other"), ["depth: is a link to", "Copy the files"]),
    "K outside": (lambda d: outside(d / "cam_K.txt", d.parent / "K.txt"), ["cam_K.txt: is a link to"]),
    "depth of kilometres": (
        lambda d: [write_depth(p.with_suffix(""), np.full((120, 160), 65.0), "mm") for p in d.glob("depth/*")],
        ["65 m in millimetres", "--depth-unit"],
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_folder_is_refused(folder, name):
    change, expected = BAD[name]
    change(folder)
    with pytest.raises(ScaffoldError) as error:
        read_capture(folder)
    for part in expected:
        assert part in str(error.value)


ONES = np.ones((120, 160), np.float32)


@pytest.mark.parametrize(
    ("channels", "expected"),
    [
        ({"depth.Z": ONES}, "got the channels depth.Z; allowed"),
        ({"Y": ONES, "RY": ONES, "BY": ONES}, "got the channels BY, RY, Y; allowed"),
        ({"RGB": np.stack((ONES, 2 * ONES, ONES), -1)}, "R, G and B differ: colours, no depth"),
        ({"Z": ONES.astype(np.uint32)}, "no channel of floats named Z, Y, V or R among Z"),
        (None, r"not readable as an image \(no EXR file, or cut off"),
    ],
)
def test_exr_that_is_no_depth_is_refused(folder, channels, expected):
    for path in (folder / "depth").iterdir():
        write_exr(path.with_suffix(".exr"), {"Z": ONES})
        path.unlink()
    bad = folder / "depth/000001.exr"
    if channels:
        write_exr(bad, channels)
    else:
        bad.write_bytes(bad.read_bytes()[:-200])
    with pytest.raises(ScaffoldError, match=rf"depth/000001.exr: .*{expected}"):
        read_capture(folder, depth_unit=1.0).frames[1].image()


def test_a_link_within_the_capture_is_followed(folder):
    outside(folder / "rgb/000001.png", folder / "kept.png")
    assert len(read_capture(folder).frames) == 4


@pytest.mark.parametrize("unit", [0.0, -1.0, float("nan"), float("inf")])
def test_depth_unit_has_to_be_positive(folder, unit):
    with pytest.raises(ScaffoldError, match="allowed: above 0"):
        read_capture(folder, depth_unit=unit)


def test_missing_folder_is_refused(tmp_path):
    with pytest.raises(ScaffoldError, match="no such folder"):
        read_capture(tmp_path / "nothing")


def test_several_cameras_need_poses(tmp_path):
    write_capture(tabletop(0, cameras="fixed", count=2), tmp_path, layout="cameras")
    (tmp_path / "cam_1/cam_in_world.txt").unlink()
    with pytest.raises(ScaffoldError, match=r"cam_1/cam_in_world.txt: missing"):
        read_capture(tmp_path)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"fx": None}, "allowed: fx, fy"),
        ({"fx": -1}, "K is not finite and positive"),
        ({"t_00": 5}, "rotation part is off"),
        ({"width": 1024}, "says 1024 x 240"),
        ("{", "JSONDecodeError"),
    ],
)
def test_bad_keyframe_of_polycam_is_refused(tmp_path, change, expected):
    write_capture(tabletop(0, count=2), tmp_path, layout="polycam")
    path = tmp_path / "keyframes/cameras/000001.json"
    path.write_text(change if isinstance(change, str) else json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ScaffoldError, match=expected) as error:
        read_capture(tmp_path)
    assert "000001.json" in str(error.value)


def test_faults_are_as_told(truth):
    clean = truth.picture(0)
    faulty = truth.picture(0, Faults(sigma=0.01, dropout=0.1, mask_growth=-1, mask_hole=2))
    both = (clean.depth > 0) & (faulty.depth > 0)
    scaled = (faulty.depth - clean.depth)[both] / clean.depth[both] ** 2
    assert np.std(scaled) == pytest.approx(0.01, rel=0.05)
    assert 1 - both.sum() / (clean.depth > 0).sum() == pytest.approx(0.1, abs=0.01)
    for name, mask in clean.masks.items():
        assert not (faulty.masks[name] & ~mask).any() and faulty.masks[name].sum() < mask.sum()
    np.testing.assert_array_equal(truth.picture(0, REAL_FAULTS).depth, truth.picture(0, REAL_FAULTS).depth)
