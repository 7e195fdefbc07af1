"""A floating Allegro right hand: six wrist joints, then the hand's sixteen, with primitive colliders.

Joint origins, limits and masses are the published ones of the Allegro Hand (right); shapes are our own.
With all wrist joints at zero the palm looks down and the fingers point forward (+x).
"""

from pathlib import Path

import numpy as np

from scaffoldlab.geometry import quat_xyzw_from_rpy
from scaffoldlab.usd.shapes import capsule, rounded_box
from scaffoldlab.usd.writer import UsdWriter

WRIST_MASS, WRIST_INERTIA = 0.02, (1e-3, 1e-3, 1e-3)
PALM_MASS = 0.4154
LINK_MASSES = (0.0119, 0.065, 0.0355, 0.026)
SEGMENTS = (0.0164, 0.054, 0.0384, 0.0267)
LIMITS = ((-0.47, 0.47), (-0.196, 1.61), (-0.174, 1.709), (-0.227, 1.618))
FINGERS = {"index": (0.0435, -0.0015, -5.0), "middle": (0.0, 0.0007, 0.0), "ring": (-0.0435, -0.0015, 5.0)}
THUMB_LIMITS = ((0.263, 1.396), (-0.105, 1.163), (-0.189, 1.644), (-0.162, 1.719))
THUMB_ORIGIN, THUMB_RPY = (-0.0182, 0.019333, -0.045987), (0.0, -1.65806, -1.5708)
TIP_RADIUS, LINK_RADIUS = 0.012, 0.0105


def build(folder: Path, license: str) -> None:
    usd = UsdWriter(folder / "allegro_floating.usda", license=license)
    usd.articulation()
    materials(usd)
    _wrist(usd)
    palm(usd)
    _sleeve(usd)
    fingers(usd)
    usd.save()


def materials(usd: UsdWriter) -> None:
    """What the hand is made of, here and on an arm."""
    usd.friction("rubber", static=2.0, dynamic=2.0, combine="max")
    usd.surface("shell", color=(0.045, 0.05, 0.06), roughness=0.35)
    usd.surface("joint", color=(0.42, 0.44, 0.47), roughness=0.3, metallic=1.0)
    usd.surface("tip", color=(0.86, 0.87, 0.88), roughness=0.6)


def fingers(usd: UsdWriter) -> None:
    """The four fingers, on a body called ``palm``."""
    for finger, (y, z, roll_deg) in FINGERS.items():
        quat = quat_xyzw_from_rpy(np.radians([roll_deg, 0, 0]))
        _finger(usd, finger, (0, y, z), quat)
    _thumb(usd)


def _wrist(usd: UsdWriter) -> None:
    usd.body("base", mass=WRIST_MASS, inertia=WRIST_INERTIA, gravity=False)
    usd.joint("world_base", "fixed", None, "base")
    parent = "base"
    joints = (("x", "X"), ("y", "Y"), ("z", "Z"), ("yaw", "Z"), ("pitch", "Y"), ("roll", "X"))
    for name, axis in joints:
        linear = name in "xyz"
        child = "palm" if name == "roll" else f"wrist_{name}"
        palm_down = quat_xyzw_from_rpy(np.radians([0, -90, 0])) if name == "roll" else (0, 0, 0, 1)
        if name == "roll":
            placed = quat_xyzw_from_rpy(np.radians([0, 90, 0]))
            usd.body("palm", mass=PALM_MASS, quat_xyzw=placed, gravity=False)
        else:
            usd.body(child, mass=WRIST_MASS, inertia=WRIST_INERTIA, gravity=False)
        usd.joint(
            f"wrist_{name}",
            "prismatic" if linear else "revolute",
            parent,
            child,
            axis=axis,  # type: ignore[arg-type]
            limits=(-3.0, 3.0) if linear else (-np.pi, np.pi),
            child_quat_xyzw=palm_down,
        )
        parent = child


def palm(usd: UsdWriter) -> None:
    """Shapes of the body called ``palm``."""
    size, position = (0.034, 0.112, 0.095), (-0.0205, 0.0, -0.0475)
    usd.collider("palm/collider", "box", size=size, position=position, friction="rubber")
    usd.visual("palm/shell", rounded_box(size, 0.012), surface="shell", position=position)
    usd.visual("palm/pad", rounded_box((0.006, 0.084, 0.06), 0.0028), surface="joint", position=(-0.0042, 0, -0.045))


def _sleeve(usd: UsdWriter) -> None:
    """Something for the eye where an arm would be."""
    usd.visual("palm/cuff", capsule(0.032, 0.05), surface="joint", position=(-0.0205, 0, -0.115))
    usd.visual("palm/arm", capsule(0.026, 0.10), surface="shell", position=(-0.0205, 0, -0.18))


def _finger(usd: UsdWriter, finger: str, origin: tuple[float, float, float], quat: np.ndarray) -> None:
    parent, position, rotation = "palm", origin, quat
    for link, (axis, limits) in enumerate(zip("ZYYY", LIMITS, strict=True)):
        child = f"{finger}_link_{link}" if link < 3 else f"{finger}_tip"
        _link(usd, child, LINK_MASSES[link], SEGMENTS[link], tip=link == 3)
        usd.joint(
            f"{finger}_{link}", "revolute", parent, child, axis=axis, limits=limits, position=position,
            quat_xyzw=rotation,
        )  # fmt: skip
        parent, position, rotation = child, (0, 0, SEGMENTS[link]), (0, 0, 0, 1)


def _thumb(usd: UsdWriter) -> None:
    # The first axis is -x of the published frame: the joint frame is turned half round z on both sides.
    half_turn = np.array([0.0, 0.0, 1.0, 0.0])
    base = _quat_multiply(quat_xyzw_from_rpy(np.array(THUMB_RPY)), half_turn)
    origins = (THUMB_ORIGIN, (-0.027, 0.005, 0.0399), (0, 0, 0.0177), (0, 0, 0.0514))
    lengths = (None, 0.0177, 0.0514, 0.0423)
    parent = "palm"
    for link, (axis, limits) in enumerate(zip("XZYY", THUMB_LIMITS, strict=True)):
        child = f"thumb_link_{link}" if link < 3 else "thumb_tip"
        _link(usd, child, LINK_MASSES[link], lengths[link], tip=link == 3)
        usd.joint(
            f"thumb_{link}", "revolute", parent, child, axis=axis, limits=limits, position=origins[link],
            quat_xyzw=base if link == 0 else (0, 0, 0, 1),
            child_quat_xyzw=half_turn if link == 0 else (0, 0, 0, 1),
        )  # fmt: skip
        parent = child


def _link(usd: UsdWriter, body: str, mass: float, length: float | None, *, tip: bool) -> None:
    """One finger segment along z; without a length it is the bracket at the thumb's root."""
    usd.body(body, mass=mass, gravity=False)
    if length is None:
        shape, position = (0.024, 0.022, 0.030), (-0.0135, 0.003, 0.026)
        usd.collider(f"{body}/collider", "box", size=shape, position=position, friction="rubber")
        usd.visual(f"{body}/shell", rounded_box(shape, 0.006), surface="shell", position=position)
        return
    radius = TIP_RADIUS if tip else LINK_RADIUS
    usd.collider(
        f"{body}/collider", "capsule", size=radius, length=length, position=(0, 0, length / 2), friction="rubber"
    )
    if tip:
        usd.visual(f"{body}/shell", capsule(LINK_RADIUS, length * 0.7), surface="shell", position=(0, 0, length * 0.3))
        usd.visual(f"{body}/pad", capsule(radius, length * 0.45), surface="tip", position=(0, 0, length * 0.775))
    else:
        usd.visual(f"{body}/shell", rounded_box((0.019, 0.0205, length + 0.008), 0.006), surface="shell",
                   position=(0, 0, length / 2))  # fmt: skip
        usd.visual(f"{body}/knuckle", capsule(0.0085, 0.012), surface="joint",
                   quat_xyzw=(0.70710678, 0, 0, 0.70710678))  # fmt: skip


def _quat_multiply(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    imaginary = a[3] * b[:3] + b[3] * a[:3] + np.cross(a[:3], b[:3])
    return np.append(imaginary, a[3] * b[3] - a[:3] @ b[:3])
