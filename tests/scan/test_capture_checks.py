"""The examination of a capture names each fault with numbers, and finds none where there is none."""

import json
import shutil

import numpy as np
import pytest
import trimesh
from PIL import Image

from captures import REAL_FAULTS, SceneTruth, failed_pose, tabletop, write_bundlesdf_out, write_capture
from scaffoldlab.errors import ScaffoldError
from scaffoldlab.scan.captures.capture import read_capture
from scaffoldlab.scan.captures.checks import examine_capture, usable_poses
from scaffoldlab.scan.captures.object_poses import PoseLimits
from scaffoldlab.scan.captures.view_checks import lost_frames
from shapes import SHAPES


@pytest.fixture(scope="module")
def truth():
    return tabletop(0, count=8, level_world=True)


@pytest.fixture(scope="module")
def written(truth, tmp_path_factory):
    folder = tmp_path_factory.mktemp("written") / "capture"
    write_capture(truth, folder, layout="foundationpose")
    return folder


@pytest.fixture
def folder(written, tmp_path):
    return shutil.copytree(written, tmp_path / "capture")


def found(capture, check, **settings):
    """The finding of one check."""
    (finding,) = [f for f in examine_capture(capture, **settings) if f.check == check]
    return finding


def fill(folder, value):
    for path in folder.iterdir():
        Image.fromarray(np.full((120, 160), value, np.uint8)).save(path)


def severities(capture):
    return {f.check: f.severity for f in examine_capture(capture)}


@pytest.mark.parametrize("layout", ["moving", "cameras", "foundationpose", "polycam", "tree"])
def test_a_good_capture_of_a_real_camera_has_no_finding(layout, tmp_path):
    truth = tabletop(3, cameras="fixed" if layout == "cameras" else "orbit", count=5, level_world=True)
    write_capture(truth, tmp_path, layout=layout, faults=REAL_FAULTS)
    findings = examine_capture(tmp_path)
    assert {f.severity for f in findings} == {"ok"}, [f for f in findings if f.severity != "ok"]
    assert not any(f.fix for f in findings)


def test_a_good_capture_is_examined_in_every_respect(folder):
    assert set(severities(folder)) == {
        "frames", "images", "intrinsics", "depth unit", "depth range", "depth coverage", "masks of mug",
        "masks of book", "poses of mug", "poses of book", "camera poses", "views", "gravity",
    }  # fmt: skip


def test_a_folder_that_cannot_be_read_is_a_finding(folder):
    (folder / "cam_K.txt").unlink()
    (finding,) = examine_capture(folder)
    assert finding.severity == "error" and "cam_K.txt: missing" in finding.seen


def test_one_frame_is_a_warning(tmp_path):
    write_capture(tabletop(0, count=1, level_world=True), tmp_path)
    assert found(tmp_path, "frames").severity == "warning"


@pytest.mark.parametrize("name", ["rgb/000001.png", "depth/000005.png", "masks/mug/000007.png"])
def test_a_file_that_is_cut_off_is_named_even_if_its_pixels_are_not_looked_at(folder, name):
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: len(data) // 2])
    finding = found(read_capture(folder, depth_unit=0.001), "images", sample=1)
    assert finding.severity == "error" and name in finding.seen and "1 of 32 files" in finding.seen


@pytest.mark.parametrize(
    ("entries", "severity", "seen"),
    [
        ({(0, 0): 30, (1, 1): 30}, "error", "focal length 30.0"),
        ({(0, 0): 1000, (1, 1): 1000}, "error", "0.4 to 3 widths"),
        ({(1, 1): 100}, "error", "alike in x and y"),
    ],
)
def test_intrinsics_are_held_against_the_image(folder, entries, severity, seen):
    intrinsics = np.loadtxt(folder / "cam_K.txt")
    for where, value in entries.items():
        intrinsics[where] = value
    np.savetxt(folder / "cam_K.txt", intrinsics)
    finding = found(folder, "intrinsics")
    assert finding.severity == severity and seen in finding.seen


def test_principal_point_outside_the_middle_is_a_warning(tmp_path):
    write_capture(tabletop(2, count=3), tmp_path, layout="polycam")  # it says what size its K is of
    for path in tmp_path.glob("keyframes/cameras/*"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"cx": 20}))
    finding = found(tmp_path, "intrinsics")
    assert finding.severity == "warning" and "middle third" in finding.seen


def test_a_given_unit_that_is_wrong_is_an_error_that_names_the_right_one(folder):
    unit, views = (found(folder, check, depth_unit=1.0) for check in ("depth unit", "views"))
    assert unit.severity == views.severity == "error"
    assert "median depth is 6" in unit.seen and "0.001 (millimetres)" in unit.fix
    assert views.fix == "Give 0.001 m as the depth unit"


def test_a_unit_that_is_not_sure_is_a_warning(truth, tmp_path):
    write_capture(truth, tmp_path, layout="tree", depth="tum")
    assert found(tmp_path, "depth unit").severity == "warning"


def test_depth_with_holes_is_a_warning_and_none_an_error(folder):
    for path in folder.glob("depth/*"):
        depth = np.array(Image.open(path))
        depth[:, ::2] = 0
        Image.fromarray(depth).save(path)
    finding = found(folder, "depth coverage")
    assert finding.severity == "warning" and "% of the pixels" in finding.seen
    for path in folder.glob("depth/*"):
        Image.fromarray(np.zeros((120, 160), np.uint16)).save(path)
    assert found(folder, "depth coverage").severity == "error"
    assert found(folder, "depth unit").severity == "warning"


def test_masks_that_are_empty_or_everything_are_named(folder):
    Image.fromarray(np.zeros((120, 160), np.uint8)).save(folder / "masks/mug/000002.png")
    Image.fromarray(np.ones((120, 160), np.uint8)).save(folder / "masks/mug/000003.png")
    finding = found(folder, "masks of mug")
    assert finding.severity == "warning"
    assert "1 are empty, 000002; 1 are everything, 000003" in finding.seen


def test_masks_of_nothing_are_an_error_unless_the_poses_are_good(folder):
    fill(folder / "masks/book", 0)
    finding = found(folder, "masks of book")
    assert finding.severity == "warning" and "8 are empty" in finding.seen and "by its poses" in finding.fix
    for path in folder.glob("ob_in_cam/book/*"):
        np.savetxt(path, np.eye(4))
    assert found(folder, "masks of book").severity == found(folder, "poses of book").severity == "error"
    assert not {"masks of book", "poses of book"} & {f.check for f in examine_capture(folder, without=["book"])}
    shutil.rmtree(folder / "ob_in_cam/book")
    assert found(folder, "masks of book").severity == "error"


def test_masks_of_everything_are_an_error_whatever_the_poses(folder):
    fill(folder / "masks/book", 255)  # nothing of the table would be left
    assert found(folder, "masks of book").severity == "error"


def test_failed_poses_are_found_and_left_out(truth, tmp_path):
    failures = {"mug": {2: "identity", 3: "nan", 5: "jump", 6: "missing"}, "book": {0: "identity", 1: "jump"}}
    names = write_capture(truth, tmp_path, layout="foundationpose", failures=failures)
    capture = read_capture(tmp_path)
    for name, failed in failures.items():
        usable = usable_poses(capture, name)
        assert set(usable) == {n for i, n in enumerate(names) if i not in failed}
        finding = found(capture, f"poses of {name}")
        assert finding.severity == "warning" and finding.fixed_by
    assert "4 usable ones in 8 frames, 1 without any" in found(capture, "poses of mug").seen
    assert "000005 (jump by 27 cm and 0 deg)" in found(capture, "poses of mug").seen


@pytest.mark.parametrize("failure", ["mirrored", "behind"])
def test_an_impossible_pose_is_left_out(folder, failure):
    path = folder / "ob_in_cam/mug/000004.txt"
    pose = np.loadtxt(path)
    if failure == "mirrored":
        pose[:3, 0] *= -1
    else:
        pose[:3, 3] *= -1
    np.savetxt(path, pose)
    assert "000004" not in usable_poses(read_capture(folder), "mug")


def test_an_object_that_was_never_registered_is_an_error_unless_it_has_masks(folder):
    for path in folder.glob("ob_in_cam/mug/*"):
        np.savetxt(path, failed_pose(np.loadtxt(path), "identity"))
    assert usable_poses(read_capture(folder), "mug") == {}
    finding = found(folder, "poses of mug")
    assert finding.severity == "warning" and "fits it to its masks" in finding.fix
    shutil.rmtree(folder / "masks/mug")
    finding = found(folder, "poses of mug")
    assert finding.severity == "error" and not finding.fixed_by and "8 identity rotation" in finding.seen


def test_an_object_that_was_moved_keeps_its_poses_on_both_sides(folder):
    for index in range(4, 8):
        path = folder / f"ob_in_cam/mug/{index:06d}.txt"
        np.savetxt(path, failed_pose(np.loadtxt(path), "jump"))
    pose_wc = np.loadtxt(folder / "cam_in_world/000004.txt")
    for index in range(4, 8):  # all at the same new place of the world
        pose_wc_now = np.loadtxt(folder / f"cam_in_world/{index:06d}.txt")
        pose_cb = np.loadtxt(folder / "ob_in_cam/mug/000004.txt")
        np.savetxt(folder / f"ob_in_cam/mug/{index:06d}.txt", np.linalg.inv(pose_wc_now) @ pose_wc @ pose_cb)
    assert len(usable_poses(read_capture(folder), "mug")) == 8
    assert len(usable_poses(read_capture(folder), "mug", limits=PoseLimits(settle=5))) == 4


def test_a_tracker_that_flips_the_object_now_and_then_is_not_believed(folder):
    flip = trimesh.transformations.rotation_matrix(np.pi, (1, 0, 0))
    for index in (1, 3, 6):
        path = folder / f"ob_in_cam/book/{index:06d}.txt"
        np.savetxt(path, np.loadtxt(path) @ flip)
    assert set(usable_poses(read_capture(folder), "book")) == {f"{i:06d}" for i in (0, 2, 4, 5, 7)}


def test_bundlesdf_may_start_with_an_unturned_pose_that_the_next_one_continues(tmp_path):
    write_bundlesdf_out(tmp_path, SHAPES["mug"](), count=6)
    turn = trimesh.transformations.rotation_matrix(0.1, (0, 0, 1))
    for index in range(6):
        pose = np.linalg.matrix_power(turn, index)
        pose[2, 3] = 0.5
        np.savetxt(tmp_path / f"ob_in_cam/{index:04d}.txt", pose)
    assert len(usable_poses(read_capture(tmp_path), "object")) == 6
    again = np.eye(4)
    again[2, 3] = 0.5
    np.savetxt(tmp_path / "ob_in_cam/0001.txt", again)
    assert "0001" not in usable_poses(read_capture(tmp_path), "object")


def test_failures_among_few_pictures_from_far_apart_are_found(tmp_path):
    write_bundlesdf_out(tmp_path, SHAPES["mug"](), count=6, failures={0: "identity", 2: "jump"})
    assert set(usable_poses(read_capture(tmp_path), "object")) == {"0001", "0003", "0004", "0005"}


def test_poses_of_an_unknown_object_are_refused(folder):
    with pytest.raises(ScaffoldError, match="no poses of 'cup'; allowed: book, mug"):
        usable_poses(read_capture(folder), "cup")


@pytest.mark.parametrize("factor", [5, 2, 0.5, 0.1])
def test_a_unit_that_is_off_but_plausible_is_told_by_the_other_pictures(factor, tmp_path):
    write_capture(tabletop(6, count=6), tmp_path, layout="moving")
    finding = found(tmp_path, "views", depth_unit=0.001 * factor)
    assert finding.severity == "error" and finding.fix == "Give 0.001 m as the depth unit"


@pytest.mark.parametrize(
    ("change", "fix"),
    [
        (np.linalg.inv, "Write the inverse matrices"),
        (lambda pose: pose @ np.diag((1.0, -1, -1, 1)), "Negate the second and the third column"),
    ],
)
def test_poses_in_another_convention_are_recognised(tmp_path, change, fix):
    write_capture(tabletop(4, count=6), tmp_path, layout="moving")
    for path in tmp_path.glob("cam_in_world/*"):
        np.savetxt(path, change(np.loadtxt(path)))
    finding = found(tmp_path, "views")
    assert finding.severity == "error" and finding.fix.startswith(fix)


def test_imprecise_camera_poses_are_a_warning(folder):
    rng = np.random.default_rng(0)
    for path in folder.glob("cam_in_world/*"):
        pose = np.loadtxt(path)
        pose[:3, 3] += rng.normal(size=3) * 0.05
        np.savetxt(path, pose)
    assert found(folder, "views").severity == "warning"


def test_a_camera_that_falls_back_to_the_origin_is_named(folder):
    np.savetxt(folder / "cam_in_world/000004.txt", np.eye(4))
    finding = found(folder, "camera poses")
    assert finding.severity == "warning" and finding.fixed_by
    assert "1 of 8 have fallen back to the identity: 000004" in finding.seen and "left out" in finding.fix
    assert found(folder, "views").severity == found(folder, "poses of mug").severity == "ok"


def test_only_an_identity_that_leaves_its_neighbours_is_a_lost_camera(folder):
    paths = sorted(folder.glob("cam_in_world/*"))
    start = np.linalg.inv(np.loadtxt(paths[2]))

    def write(poses):
        for path, pose in zip(paths, poses, strict=True):
            np.savetxt(path, pose)
        return lost_frames(read_capture(folder, depth_unit=0.001))

    poses = [start @ np.loadtxt(path) for path in paths]
    poses[2] = np.eye(4)
    assert write(poses) == []  # the world is that of this picture
    assert write([np.eye(4), *poses[2:], poses[-1]]) == []  # or of the first ones, standing still
    far = trimesh.transformations.translation_matrix((3, 0, 0))
    moved = [far @ pose for pose in poses]
    assert write([np.eye(4), *moved[1:4], np.eye(4), np.eye(4), *moved[6:]]) == ["000000", "000004", "000005"]
    assert write([np.eye(4)] * 8) == []
    assert write([np.eye(4)] * 7 + [far]) == []  # which of them is lost, nobody knows


def test_a_camera_that_jumps_elsewhere_is_named(folder):
    pose = np.loadtxt(folder / "cam_in_world/000004.txt")
    pose[:3, 3] += 5
    np.savetxt(folder / "cam_in_world/000004.txt", pose)
    np.savetxt(folder / "cam_in_world/000006.txt", np.eye(4))
    jumps, lost = (f for f in examine_capture(folder) if f.check == "camera poses")
    assert "jumps at 000004" in jumps.seen and not jumps.fixed_by
    assert "identity: 000006" in lost.seen and lost.fixed_by


@pytest.mark.parametrize("tilt_deg", [0.0, 1.0, 5.0, 90.0, 180.0])
def test_gravity_is_told_in_degrees(truth, tilt_deg, tmp_path):
    tilt = trimesh.transformations.rotation_matrix(np.deg2rad(tilt_deg), (1, 0.3, 0))
    write_capture(truth, tmp_path)
    for path in tmp_path.glob("cam_in_world/*"):
        np.savetxt(path, tilt @ np.loadtxt(path))
    finding = found(tmp_path, "gravity")
    told = float(finding.seen.split("leans ")[1].split(" deg")[0])
    assert told == pytest.approx(tilt_deg, abs=0.3)
    assert finding.severity == ("ok" if tilt_deg < 2 else "warning")


def test_the_truth_stands_on_its_table():
    truth = tabletop(5, objects=("mug", "book", "shoe"))
    assert isinstance(truth, SceneTruth)
    for mesh, pose_wb in truth.objects.values():
        heights = trimesh.transform_points(mesh.vertices, pose_wb) @ truth.table_normal - truth.table_height
        assert heights.min() == pytest.approx(0, abs=1e-6)
