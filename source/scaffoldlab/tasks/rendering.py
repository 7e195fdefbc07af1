"""RGB-D pictures of a task's scene, rendered by Newton's Warp ray tracer on any machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import trimesh
from isaaclab.envs import ManagerBasedRLEnvCfg
from isaaclab.sensors import CameraCfg
from isaaclab.sim import OpenCvPinholeDistortionCfg, PinholeCameraCfg
from isaaclab_newton.renderers import NewtonWarpRendererCfg

from scaffoldlab.camera import Camera, RgbdImage
from scaffoldlab.specs.models import CameraSpec, load_task
from scaffoldlab.tasks.simulation import make_cfg, open_cfg
from scaffoldlab.terms.observations import plan_of

if TYPE_CHECKING:
    from isaaclab.envs import ManagerBasedRLEnv

    from scaffoldlab.plans.library import PlanLibrary

FOCAL_LENGTH = 24.0

OUT_OF_REACH = 1000.0
"""Height above its place at which a camera sees nothing [m]; it sees up to 20 m far."""


def camera_of(spec: CameraSpec, *, size: int | None = None) -> Camera:
    """The camera of a scene file; ``size`` makes the picture square with that many pixels a side."""
    return spec.camera(size=size)


def add_camera(cfg: ManagerBasedRLEnvCfg, spec: CameraSpec, *, size: int | None = None) -> None:
    """Adds the scene's camera to an environment configuration; each env gets its own."""
    camera = camera_of(spec, size=size)
    quat_wxyz = trimesh.transformations.quaternion_from_matrix(camera.pose_ec)
    cfg.scene.camera = CameraCfg(
        prim_path="{ENV_REGEX_NS}/camera",
        offset=CameraCfg.OffsetCfg(
            pos=tuple(camera.pose_ec[:3, 3]), rot=tuple(quat_wxyz[[1, 2, 3, 0]]), convention="ros"
        ),
        spawn=PinholeCameraCfg(
            focal_length=FOCAL_LENGTH,
            horizontal_aperture=FOCAL_LENGTH * camera.width / float(camera.intrinsics[0, 0]),
            clipping_range=(0.05, 20.0),
            distortion=_calibration(camera) if spec.intrinsics else None,
        ),
        width=camera.width,
        height=camera.height,
        data_types=["rgb", "distance_to_image_plane"],
        renderer_cfg=NewtonWarpRendererCfg(enable_shadows=True),
    )


def _calibration(camera: Camera) -> OpenCvPinholeDistortionCfg:
    """A real camera without distortion: the only way to an axis off the centre and to pixels that are not square."""
    (fx, _, cx), (_, fy, cy) = camera.intrinsics[:2].tolist()
    return OpenCvPinholeDistortionCfg(fx=fx, fy=fy, cx=cx, cy=cy, image_size=(camera.width, camera.height))


def take_pictures(env: ManagerBasedRLEnv, camera: Camera, env_ids: Sequence[int] | None = None) -> list[RgbdImage]:
    """A picture of every env as it is now, or of each of some envs.

    All envs are rendered at once. Of those that are not asked for the cameras look from out of reach while it
    happens: a picture of nothing takes little time.
    """
    sensor = env.scene["camera"]
    env.sim.render()
    if env_ids is None:
        sensor.update(0.0, force_recompute=True)
        ids = slice(None)
    else:
        ids = torch.as_tensor(env_ids, device=env.device)
        at_w = env.scene.env_origins + env.scene.env_origins.new_tensor(camera.pose_ec[:3, 3])
        away_w = at_w + at_w.new_tensor((0.0, 0.0, OUT_OF_REACH))
        away_w[ids] = at_w[ids]
        sensor.set_world_poses(away_w)
        sensor.update(0.0, force_recompute=True)
        sensor.set_world_poses(at_w)
    rgb = sensor.data.output["rgb"].torch[ids, ..., :3].cpu().numpy().copy()
    depth = sensor.data.output["distance_to_image_plane"].torch[ids, ..., 0].cpu().numpy().copy()
    return [RgbdImage(c, np.nan_to_num(d, posinf=0.0), camera) for c, d in zip(rgb, depth, strict=True)]


def render_initial_states(
    task: str,
    library: PlanLibrary,
    *,
    device: str | None = None,
    overrides: tuple[str, ...] = (),
    size: int | None = None,
    envs: int = 4,
    on_picture: Callable[[int], None] | None = None,
) -> list[RgbdImage]:
    """RGB-D pictures of the initial state of every plan, in order.

    For a picture of every initial state of a seed give
    :func:`~scaffoldlab.planners.making.still_library`: a planner may have left states out of its library.

    Args:
        task: Task name.
        library: Plans; only their initial states matter.
        device: As in :func:`~scaffoldlab.tasks.simulation.make_cfg`.
        overrides: Hydra overrides and presets.
        size: Side of a square picture [px]; None takes the scene file's size.
        envs: Pictures rendered at once.
        on_picture: Called with the number of pictures done.
    """
    composition = load_task(task)
    cfg = make_cfg(task, num_envs=min(envs, len(library)), device=device, overrides=overrides)
    add_camera(cfg, composition.scene.camera, size=size)
    camera = camera_of(composition.scene.camera, size=size)
    pictures: list[RgbdImage] = []
    with open_cfg(cfg, composition.task.env_id) as env:
        plan = plan_of(env)
        plan.use(library)
        for start in range(0, len(library), env.num_envs):
            ids = torch.arange(start, start + env.num_envs, device=env.device).clamp(max=len(library) - 1)
            plan.assign(ids)
            env.reset()
            pictures += take_pictures(env, camera)
            if on_picture:
                on_picture(min(len(pictures), len(library)))
    return pictures[: len(library)]
