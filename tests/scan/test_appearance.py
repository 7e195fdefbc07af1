"""make_visual: fewer faces, and the same colours in the same places."""

import numpy as np
import pytest
import trimesh

from captures import write_bundlesdf_out
from meshfiles import TILES, atlas_textured, colours
from scaffoldlab.scan.objects.appearance import make_visual
from scaffoldlab.scan.objects.reading import Scan, read_scan
from scaffoldlab.scan.objects.solid import make_solid
from shapes import mug, t_shape


def dense(mesh, edge):
    return trimesh.Trimesh(*trimesh.remesh.subdivide_to_size(mesh.vertices, mesh.faces, edge)).process()


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    """A mug of many faces in millimetres."""
    mesh = atlas_textured(dense(mug(), 0.005)).apply_scale(1000)
    assert len(mesh.faces) > 30_000
    return Scan(mesh, tmp_path_factory.mktemp("scan") / "mug.obj")


@pytest.fixture(scope="module")
def solid(scan):
    return solid_of(scan, 0.001)


def solid_of(scan, scale):
    return make_solid(scan.mesh.vertices * scale, scan.mesh.faces, "scan.obj").mesh


def same_colours(scan, visual, scale, count=2000):
    points, _ = trimesh.sample.sample_surface(visual, count, seed=3)
    return (colours(visual, points) == colours(scan.mesh, points / scale)).all(1).mean()


@pytest.mark.parametrize("budget", [1000, 10**6])
def test_colours_stay_where_they_were(scan, solid, budget):
    visual = make_visual(scan, solid, 0.001, budget)
    assert len(visual.faces) <= min(budget, len(solid.faces))
    assert len(visual.faces) > 0.8 * min(budget, len(solid.faces))
    assert visual.bounds == pytest.approx(scan.mesh.bounds * 0.001, abs=5e-4)
    assert visual.volume == pytest.approx(solid.volume, rel=0.03)
    assert same_colours(scan, visual, 0.001) > 0.95


def test_uvs_stay_in_the_picture(scan, solid):
    visual = make_visual(scan, solid, 0.001, 2000)
    assert -0.01 < visual.visual.uv.min() < visual.visual.uv.max() < 1.01


def test_textured_mesh_of_bundlesdf_keeps_its_colours(tmp_path):
    write_bundlesdf_out(tmp_path, atlas_textured(dense(t_shape(), 0.01)), count=1)
    scan = read_scan(tmp_path)
    visual = make_visual(scan, solid_of(scan, 1.0), 1.0, 1000)
    assert same_colours(scan, visual, 1.0, 1000) > 0.95


def test_scan_without_picture_has_a_visual_without_uvs(scan, solid):
    bare = Scan(trimesh.Trimesh(scan.mesh.vertices, scan.mesh.faces), scan.path)
    visual = make_visual(bare, solid, 0.001, 2000)
    assert getattr(visual.visual, "uv", None) is None
    assert len(visual.faces) <= 2000


def test_broken_vertices_do_not_spoil_the_colours():
    mesh = atlas_textured(dense(t_shape(), 0.01))
    mesh.vertices[::50] = np.nan
    scan = Scan(mesh, None)
    visual = make_visual(scan, solid_of(scan, 1.0), 1.0, 1000)
    whole = Scan(atlas_textured(dense(t_shape(), 0.01)), None)
    assert np.isfinite(visual.visual.uv).all()
    assert same_colours(whole, visual, 1.0, 1000) > 0.9


def test_picture_of_the_test_has_large_tiles(scan):
    """Each tile is 64 pixels: what the bound of 95 % is about."""
    assert scan.texture.size == (3 * TILES * 64, 2 * TILES * 64)
