"""What stands on a table as convex solids: a shelf in parts, a box whole, dust not at all."""

import numpy as np
import pytest
import trimesh

from scaffoldlab.scan.scenes.background import Background
from scaffoldlab.scan.scenes.solids import find_solids
from scaffoldlab.scan.scenes.support import Table
from shapes import shelf

TABLE = Table(np.eye(4), np.zeros(3), np.eye(3), np.array((1.0, 1.2)), 0.0, 0.0)


def background(*meshes, count=40_000, noise=0.001, cut=lambda points: np.ones(len(points), bool)):
    """Points on meshes as a depth camera sees them."""
    whole = trimesh.util.concatenate(meshes)
    points, faces = trimesh.sample.sample_surface(whole, count, seed=0)
    points = points + np.random.default_rng(0).normal(0, noise, points.shape)
    keep = cut(points)
    return Background(points[keep], whole.face_normals[faces][keep], np.zeros((keep.sum(), 3)), np.empty((0, 3), int))


def test_shelf_is_taken_apart_and_stays_hollow():
    solids = find_solids(background(shelf()), TABLE).solids
    kinds = [solid.kind for solid in solids]
    assert kinds.count("wall") == 3 and kinds.count("board") >= 1 and len(kinds) <= 6
    for middle in ((0, 0, 0.10), (0, 0, 0.27)):  # where books go
        assert not any(solid.hull.contains([middle])[0] for solid in solids)
    upper = max((s for s in solids if s.kind == "board"), key=lambda s: s.corners_e[:, 2].max())
    assert upper.corners_e[:, 2].max() == pytest.approx(0.23, abs=0.01)
    assert np.ptp(upper.corners_e, axis=0)[:2] == pytest.approx((0.37, 0.19), abs=0.03)


def test_block_is_one_convex_solid():
    box = trimesh.creation.box((0.1, 0.2, 0.15)).apply_translation((0.2, 0.1, 0.075))
    (solid,) = find_solids(background(box), TABLE).solids
    assert solid.kind == "block"
    assert solid.hull.bounds[1] == pytest.approx((0.25, 0.2, 0.15), abs=0.005)
    assert solid.hull.bounds[0, 2] == pytest.approx(0, abs=1e-6)  # it stands on the table


def test_board_of_which_only_the_top_was_seen_lies_below_it():
    board = trimesh.creation.box((0.3, 0.2, 0.02)).apply_translation((0, 0, 0.2))
    seen = background(board, cut=lambda points: points[:, 2] > 0.209, noise=0)
    (solid,) = find_solids(seen, TABLE).solids
    assert solid.kind == "board"
    assert solid.corners_e[:, 2].max() == pytest.approx(0.21, abs=1e-3) and np.ptp(solid.corners_e[:, 2]) >= 0.01


def test_dust_and_what_is_far_away_is_dropped():
    dust = trimesh.creation.icosphere(radius=0.008).apply_translation((0, 0, 0.3))
    wall = trimesh.creation.box((0.1, 2, 2)).apply_translation((1.5, 0, 0.5))
    table = trimesh.creation.box((1, 1.2, 0.02)).apply_translation((0, 0, -0.01))
    found = find_solids(background(dust, wall, table, count=100_000), TABLE)
    assert found.solids == [] and found.dropped <= 1


def test_empty_table_has_nothing_on_it():
    found = find_solids(background(trimesh.creation.box((1, 1.2, 0.02)).apply_translation((0, 0, -0.01))), TABLE)
    assert found.solids == [] and found.dropped == 0


def test_bowl_without_flat_sides_stays_open():
    bowl = trimesh.creation.icosphere(subdivisions=4, radius=0.12).apply_translation((0, 0, 0.14))
    solids = find_solids(background(bowl, cut=lambda points: points[:, 2] < 0.12), TABLE).solids
    assert len(solids) > 2
    assert not any(solid.hull.contains([(0, 0, 0.10)])[0] for solid in solids)
    assert any(solid.hull.contains([(0, 0, 0.022)])[0] or solid.corners_e[:, 2].min() < 0.04 for solid in solids)
