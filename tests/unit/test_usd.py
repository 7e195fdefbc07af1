"""The assets: rebuilt bit by bit, licensed, with the published numbers, and only with colliders that every engine has.

Numbers of the hand are those of shared/specs/learnability.md and of the published description of the Allegro hand.
"""

import shutil
import subprocess
import sys

import numpy as np
import pytest
from pxr import Usd, UsdGeom, UsdPhysics, UsdShade

from allegro import FINGERS, LIMITS, THUMB_LIMITS, hand_kinematics, matrix_of
from conftest import ROOT
from scaffoldlab.geometry import pose_apply
from scaffoldlab.specs.models import load_task
from scaffoldlab.usd.reader import body_names, is_fixed, joint_limits, link_poses, surface_points

ASSETS = sorted(ROOT.glob("assets/*/*/*.usda"))
HAND = ROOT / "assets/robots/allegro_floating/allegro_floating.usda"
ARM = ROOT / "assets/robots/iiwa_allegro/iiwa_allegro.usda"
APPLE = ROOT / "assets/objects/apple/apple.usda"
CABINET = ROOT / "assets/objects/cabinet/cabinet.usda"
MASSES = (0.0119, 0.065, 0.0355, 0.026)


def names(paths):
    return [path.stem for path in paths]


@pytest.fixture(scope="module")
def stages():
    return {path: Usd.Stage.Open(str(path)) for path in ASSETS}


def colliders(stage):
    return [prim for prim in stage.Traverse() if prim.HasAPI(UsdPhysics.CollisionAPI)]


# --- the files ------------------------------------------------------------------------------------------------------


def test_assets_are_rebuilt_bit_by_bit(tmp_path):
    for script in [*ROOT.glob("assets/*/*/build.py"), ROOT / "scripts/build_assets.py", ROOT / "LICENSE"]:
        copy = tmp_path / script.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(script, copy)
    subprocess.run([sys.executable, tmp_path / "scripts/build_assets.py"], check=True, capture_output=True)
    made = {path.relative_to(tmp_path) for path in (tmp_path / "assets").rglob("*") if path.is_file()}
    assert {path.relative_to(ROOT) for path in ASSETS} <= made
    different = [str(p) for p in sorted(made) if (ROOT / p).read_bytes() != (tmp_path / p).read_bytes()]
    assert not different, f"{different} are not what their build.py makes: run `make assets`"


@pytest.mark.parametrize("path", ASSETS, ids=names(ASSETS))
def test_license_lies_beside_each_asset_and_in_its_layer(path, stages):
    assert "BSD 3-Clause" in (path.parent / "LICENSE").read_text()
    assert "BSD-3-Clause" in stages[path].GetRootLayer().comment


@pytest.mark.parametrize("path", ASSETS, ids=names(ASSETS))
def test_units_are_metres_and_kilograms_with_z_up(path, stages):
    stage = stages[path]
    assert UsdGeom.GetStageMetersPerUnit(stage) == 1 and UsdPhysics.GetStageKilogramsPerUnit(stage) == 1
    assert UsdGeom.GetStageUpAxis(stage) == "Z" and stage.GetDefaultPrim().GetName() == path.stem


@pytest.mark.parametrize("path", ASSETS, ids=names(ASSETS))
def test_asset_refers_to_nothing_outside_its_folder(path, stages):
    for prim in stages[path].Traverse():
        for attribute in prim.GetAttributes():
            if attribute.GetTypeName() == "asset":
                value = attribute.Get()
                assert value.path.startswith("./") and (path.parent / value.path).is_file(), value


# --- colliders ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ASSETS, ids=names(ASSETS))
def test_colliders_are_primitives_or_convex_hulls(path, stages):
    found = colliders(stages[path])
    assert found
    for prim in found:
        kind = prim.GetTypeName()
        if kind == "Mesh":
            assert UsdPhysics.MeshCollisionAPI(prim).GetApproximationAttr().Get() == "convexHull", prim.GetPath()
        else:
            assert kind in {"Cube", "Sphere", "Capsule", "Cylinder"}, f"{prim.GetPath()} is a {kind}"


@pytest.mark.parametrize("path", ASSETS, ids=names(ASSETS))
def test_every_collider_has_a_friction_and_no_restitution(path, stages):
    """Paper, Table 2: friction 1 of things and 2 of the fingertips, restitution 0."""
    for prim in colliders(stages[path]):
        of_hand = path == HAND or (path == ARM and "/arm_" not in str(prim.GetPath()))
        expected, combine = (2.0, "max") if of_hand else (1.0, "average")
        material, _ = UsdShade.MaterialBindingAPI(prim).ComputeBoundMaterial("physics")
        assert material, f"{prim.GetPath()} has no material"
        physics = UsdPhysics.MaterialAPI(material.GetPrim())
        friction = (physics.GetStaticFrictionAttr().Get(), physics.GetDynamicFrictionAttr().Get())
        assert friction == (expected, expected) and physics.GetRestitutionAttr().Get() == 0
        assert material.GetPrim().GetAttribute("physxMaterial:frictionCombineMode").Get() == combine


@pytest.mark.parametrize("path", ASSETS, ids=names(ASSETS))
def test_cameras_see_visuals_and_engines_see_colliders(path, stages):
    """A collider is a guide, which no camera shows; a visual is a mesh with a surface and no collision."""
    visible = [
        prim
        for prim in stages[path].Traverse()
        if prim.IsA(UsdGeom.Gprim) and UsdGeom.Imageable(prim).ComputePurpose() == UsdGeom.Tokens.default_
    ]
    assert visible and not {str(p.GetPath()) for p in visible} & {str(p.GetPath()) for p in colliders(stages[path])}
    for prim in visible:
        material, _ = UsdShade.MaterialBindingAPI(prim).ComputeBoundMaterial()
        assert material.ComputeSurfaceSource()[0].GetIdAttr().Get() == "UsdPreviewSurface", prim.GetPath()


def test_apple_is_a_hull_of_42_points_and_weighs_150_g(stages):
    stage = stages[APPLE]
    assert body_names(APPLE) == []  # the asset itself is the body
    assert UsdPhysics.MassAPI(stage.GetDefaultPrim()).GetMassAttr().Get() == pytest.approx(0.150)
    (collider,) = colliders(stage)
    points = np.array(UsdGeom.Mesh(collider).GetPointsAttr().Get())
    assert len(points) == 42
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 0.0375, atol=1e-5)
    # It rests on a face: three points at the lowest height.
    assert (points[:, 2] < points[:, 2].min() + 1e-5).sum() == 3


def test_apple_rests_on_counter_and_board_where_the_task_says(stages):
    """The task's heights follow from the shapes: the face's distance from the middle, counter 0.9 m, board 16 mm."""
    points = np.array(UsdGeom.Mesh(colliders(stages[APPLE])[0]).GetPointsAttr().Get())
    rest = -points[:, 2].min()
    task = load_task("move_apple").task
    (low, high), on_top = task.initial_state.objects["apple"].z, task.success.all[1].on_top
    assert low == high == pytest.approx(0.90 + rest, abs=5e-4)
    assert on_top.height == pytest.approx(rest, abs=5e-4)  # above the keypoint on the board's upper face
    board = load_task("move_apple").scene.asset("cutting_board", "")
    assert board.position[2] == pytest.approx(0.90 + 0.016 / 2)


def test_drawers_slide_out_by_40_cm_and_not_in(stages):
    for name in ("drawer_bottom", "drawer_middle", "drawer_top"):
        joint = UsdPhysics.PrismaticJoint(stages[CABINET].GetPrimAtPath(f"/cabinet/joints/{name}_joint"))
        limits = joint.GetLowerLimitAttr().Get(), joint.GetUpperLimitAttr().Get()
        assert limits == pytest.approx((-0.40, 0.0)) and joint.GetAxisAttr().Get() == "X"
    assert body_names(CABINET) == ["frame", "drawer_bottom", "drawer_middle", "drawer_top"]
    assert list(joint_limits(CABINET)) == ["drawer_bottom_joint", "drawer_middle_joint", "drawer_top_joint"]


@pytest.mark.parametrize(("name", "root", "other"), [("pliers", "left", "right"), ("scissors", "first", "second")])
def test_tools_are_two_halves_that_nothing_holds(name, root, other, stages):
    """Without a named root PhysX would choose one of the two by itself."""
    path = ROOT / f"assets/objects/{name}/{name}.usda"
    assert not is_fixed(path) and body_names(path) == [root, other] and list(joint_limits(path)) == ["hinge"]
    roots = [p.GetName() for p in stages[path].Traverse() if p.HasAPI(UsdPhysics.ArticulationRootAPI)]
    assert roots == [root]
    joint = UsdPhysics.RevoluteJoint(stages[path].GetPrimAtPath(f"/{name}/joints/hinge"))
    assert [p.name for p in joint.GetBody0Rel().GetTargets()] == [root] and joint.GetAxisAttr().Get() == "Z"
    low, high = joint_limits(path)["hinge"]
    assert low == 0 and high > np.radians(40)  # closed is 0, and the tasks start at up to 40 deg
    np.testing.assert_allclose(link_poses(path, {"hinge": 0.3})[root], [0, 0, 0, 0, 0, 0, 1])


@pytest.mark.parametrize(("task", "asset"), [("close_pliers", "pliers"), ("close_scissors", "scissors")])
def test_tools_lie_on_the_counter_where_the_task_says(task, asset, stages):
    """The lowest point of every half is on the stone, 0.9 m up, and the hinge's axis is upright."""
    height = load_task(task).task.initial_state.objects[asset].z
    stage = stages[ROOT / f"assets/objects/{asset}/{asset}.usda"]
    boxes = UsdGeom.BBoxCache(Usd.TimeCode.Default(), [UsdGeom.Tokens.guide])
    for half in body_names(ROOT / f"assets/objects/{asset}/{asset}.usda"):
        low = boxes.ComputeWorldBound(stage.GetPrimAtPath(f"/{asset}/{half}")).ComputeAlignedRange().GetMin()[2]
        assert low == pytest.approx(0.90 - height[0], abs=1e-4) and height[0] == height[1]


def test_fridge_door_hangs_on_its_left_edge_and_opens_towards_the_room(stages):
    path = ROOT / "assets/objects/fridge/fridge.usda"
    assert is_fixed(path) and body_names(path) == ["body", "door"]
    assert joint_limits(path)["door_joint"] == pytest.approx((-np.radians(110), 0))
    closed, opened = (link_poses(path, {"door_joint": angle})["door"] for angle in (0, -np.pi / 2))
    # Half a metre along the door from the hinge, to the right: at 90 deg it points into the room, along -x.
    along = np.array([0, -0.5, 0])
    np.testing.assert_allclose(pose_apply(closed, along), [0, -0.2, 0], atol=1e-6)
    np.testing.assert_allclose(pose_apply(opened, along), [-0.5, 0.3, 0], atol=1e-6)


# --- the hand -------------------------------------------------------------------------------------------------------


def test_hand_has_six_wrist_and_sixteen_finger_joints():
    robot = load_task("move_apple").robot
    assert sorted(joint_limits(HAND)) == sorted(robot.wrist_joints + robot.finger_joints)
    assert len(robot.finger_joints) == 16 and set(robot.fingertips.values()) < set(body_names(HAND))


@pytest.mark.parametrize("finger", [*FINGERS, "thumb"])
def test_finger_has_the_published_masses_and_limits(finger, stages):
    stage = stages[HAND]
    links = [f"{finger}_link_0", f"{finger}_link_1", f"{finger}_link_2", f"{finger}_tip"]
    masses = [UsdPhysics.MassAPI(stage.GetPrimAtPath(f"/allegro_floating/{n}")).GetMassAttr().Get() for n in links]
    np.testing.assert_allclose(masses, MASSES, rtol=1e-6)
    for number, limits in enumerate(THUMB_LIMITS if finger == "thumb" else LIMITS):
        joint = UsdPhysics.RevoluteJoint(stage.GetPrimAtPath(f"/allegro_floating/joints/{finger}_{number}"))
        got = np.radians([joint.GetLowerLimitAttr().Get(), joint.GetUpperLimitAttr().Get()])
        np.testing.assert_allclose(got, limits, atol=1e-5)


def test_palm_has_the_published_mass_and_the_hand_carries_its_own_weight(stages):
    stage = stages[HAND]
    bodies = [prim for prim in stage.Traverse() if prim.HasAPI(UsdPhysics.RigidBodyAPI)]
    masses = {prim.GetName(): UsdPhysics.MassAPI(prim).GetMassAttr().Get() for prim in bodies}
    assert masses["palm"] == pytest.approx(0.4154) and masses["wrist_yaw"] == pytest.approx(0.02)
    assert all(prim.GetAttribute("physxRigidBody:disableGravity").Get() for prim in bodies)
    assert all(prim.GetAttribute("mjc:gravcomp").Get() == 1 for prim in bodies)
    root = stage.GetDefaultPrim()
    assert root.GetAttribute("physxArticulation:enabledSelfCollisions").Get() is False
    iterations = [
        root.GetAttribute(f"physxArticulation:solver{k}IterationCount").Get() for k in ("Position", "Velocity")
    ]
    assert iterations == [8, 0]


def test_fingertips_at_zero_are_where_the_published_origins_put_them():
    """Palm down, fingers forward: the palm's z is the room's x, its x points down. Finger links lie along z."""
    poses = link_poses(HAND, {})
    reach = 0.0164 + 0.054 + 0.0384
    for finger, (y, z, roll) in FINGERS.items():
        roll = np.radians(roll)
        np.testing.assert_allclose(
            poses[f"{finger}_tip"][:3], [z + reach * np.cos(roll), y - reach * np.sin(roll), 0], atol=1e-6
        )
    # The index finger is on the thumb's side, which is +y (left), and spreads outwards.
    assert poses["index_tip"][1] == pytest.approx(0.0435 + 0.1088 * np.sin(np.radians(5)), abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_every_body_moves_as_the_published_chain_says(seed):
    rng = np.random.default_rng(seed)
    joints = {name: 0.0 if seed == 0 else float(rng.uniform(-0.8, 0.8)) for name in joint_limits(HAND)}
    poses = link_poses(HAND, joints)
    for body, (position, rotation) in hand_kinematics(joints).items():
        np.testing.assert_allclose(poses[body][:3], position, atol=2e-6, err_msg=body)
        np.testing.assert_allclose(matrix_of(poses[body][3:]), rotation, atol=1e-5, err_msg=body)


def test_closed_fingers_bend_towards_the_side_that_faces_down():
    joints = {f"{finger}_{number}": 1.0 for finger in FINGERS for number in (1, 2, 3)}
    open_, closed = link_poses(HAND, {}), link_poses(HAND, joints)
    for finger in FINGERS:
        assert closed[f"{finger}_tip"][2] < open_[f"{finger}_tip"][2] - 0.05


# --- the surface ----------------------------------------------------------------------------------------------------


def test_surface_points_are_on_the_board():
    """10 000 points on a board of 22 x 30 x 1.6 cm, as many on its two large faces as their share of the area."""
    points = surface_points(ROOT / "assets/objects/cutting_board/cutting_board.usda")
    half = np.array([0.11, 0.15, 0.008])
    assert points.shape == (10_000, 3) and (np.abs(points) <= half + 1e-6).all()
    near = np.abs(np.abs(points) - half) < 1e-6
    share = near[:, 2].mean()
    large, edges = 2 * 0.22 * 0.30, 2 * 0.016 * (0.22 + 0.30)
    # Rounded edges of 5 mm take a little off the flat faces.
    assert large / (large + edges) - 0.08 < share < large / (large + edges)


def test_surface_points_of_a_link_are_in_its_frame():
    points = surface_points(CABINET, "drawer_top")
    assert points[:, 0].min() == pytest.approx(-0.051, abs=1e-3)  # the bar: 45 mm out, 6 mm thick
    assert np.abs(points[:, 2]).max() == pytest.approx(0.105, abs=1e-3)  # the front: 21 cm high
