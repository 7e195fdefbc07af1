"""read_cloud: points of files, coloured and turned to the viewer; what is no cloud is refused by name."""

import numpy as np
import pytest

from scaffoldlab.errors import ScaffoldError
from scaffoldlab.scan.o3d import open3d
from scaffoldlab.scan.scenes.cloud import read_cloud

RNG = np.random.default_rng(0)
POINTS = np.column_stack((RNG.uniform(-0.4, 0.4, (2000, 2)), np.full(2000, 0.7)))
COLORS = RNG.uniform(0, 1, (2000, 3)).round(2)


def write(path, points=POINTS, colors=COLORS):
    if path.suffix == ".npz":
        np.savez(path, points=points.astype(np.float32), colors=(colors * 255).round().astype(np.uint8))
        return path
    cloud = open3d().geometry.PointCloud(open3d().utility.Vector3dVector(points))
    cloud.colors = open3d().utility.Vector3dVector(colors)
    open3d().io.write_point_cloud(str(path), cloud)
    return path


@pytest.mark.parametrize("suffix", [".ply", ".pcd", ".xyz", ".npz"])
def test_points_and_colors_are_those_of_the_file(tmp_path, suffix):
    cloud = read_cloud(write(tmp_path / f"a{suffix}"))
    assert cloud.points == pytest.approx(POINTS, abs=1e-6)
    assert cloud.colors == pytest.approx(np.full_like(COLORS, 0.6) if suffix == ".xyz" else COLORS, abs=1 / 255)


@pytest.mark.parametrize("side", [1, -1])
def test_normals_point_to_where_it_was_seen_from(tmp_path, side):
    cloud = read_cloud(write(tmp_path / "a.npz"), seen_from=np.array((0, 0, 0.7 + side)))
    assert cloud.normals @ (0, 0, side) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("name", "arrays"),
    [("xyz", {"colors": COLORS}), ("pc", {"normals": np.tile((0.0, 0, 1), (2000, 1))}), ("arr_0", {"labels": [1]})],
)
def test_npz_of_other_programs(tmp_path, name, arrays):
    np.savez(tmp_path / "a.npz", **{name: POINTS}, **arrays)
    cloud = read_cloud(tmp_path / "a.npz")
    assert cloud.points == pytest.approx(POINTS)
    if "colors" in arrays:
        assert cloud.colors == pytest.approx(COLORS)
    if "normals" in arrays:
        assert (cloud.normals == (0, 0, 1)).all()


def test_points_that_are_not_finite_are_left_out(tmp_path):
    points = POINTS.copy()
    points[::2] = np.nan
    assert len(read_cloud(write(tmp_path / "a.npz", points)).points) == 1000


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"depth": POINTS}, r"holds depth \(2000, 3\); allowed: points"), ({}, "holds nothing"),
        ({"points": POINTS[:, :2]}, r"points \(2000, 2\)"), ({"points": POINTS, "rgb": COLORS[:9]}, r"rgb \(9, 3\)"),
        ({"points": np.full((2000, 3), "a")}, "holds points"), ({"points": 3.0}, r"holds points \(\)"),
        ({"points": POINTS[:99]}, "99 finite points; at least 100"), ({"points": np.array([{}])}, "allow_pickle"),
    ],
)  # fmt: skip
def test_npz_without_a_cloud_is_refused(tmp_path, arrays, said):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ScaffoldError, match=said):
        read_cloud(tmp_path / "a.npz")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no zip", None])
def test_broken_npz_is_refused(tmp_path, content):
    path = write(tmp_path / "a.npz")
    path.write_bytes(path.read_bytes()[:9000] if content is None else content)
    with pytest.raises(ScaffoldError, match=r"a\.npz: no \.npz file of NumPy arrays"):
        read_cloud(path)
