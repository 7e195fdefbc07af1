"""The process that simulates a drop: ``python -m scaffoldlab.scan.drop_process SPEC.json POSES.npy``."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

DT = 1 / 120


def main(spec_path: str, result: str) -> None:
    """Simulates what :func:`scaffoldlab.scan.drop.drop` asked for and writes the poses."""
    import isaaclab.sim as sim_utils
    from isaaclab.app import launch_simulation
    from isaaclab.assets import AssetBaseCfg, RigidObjectCfg
    from isaaclab.scene import InteractiveScene, InteractiveSceneCfg
    from isaaclab.sim import SimulationCfg, SimulationContext

    import scaffoldlab.tasks  # noqa: F401  applies what a machine without CUDA needs
    from scaffoldlab.scan.drop import RECORD_HZ
    from scaffoldlab.tasks.physics import PhysicsPresets

    spec = json.loads(Path(spec_path).read_text())
    floor = _floor(Path(spec_path).with_name("floor.usda"))
    cfg = InteractiveSceneCfg(num_envs=1, env_spacing=10.0)
    cfg.floor = AssetBaseCfg(prim_path="{ENV_REGEX_NS}/floor", spawn=sim_utils.UsdFileCfg(usd_path=str(floor)))
    moving = []
    for body in spec["bodies"]:
        name, place = f"body_{body['name']}", dict(pos=tuple(body["pose"][:3]), rot=tuple(body["pose"][3:]))
        shared: dict[str, Any] = dict(
            prim_path=f"{{ENV_REGEX_NS}}/{name}", spawn=sim_utils.UsdFileCfg(usd_path=body["usd"])
        )
        if body["static"]:
            asset = AssetBaseCfg(init_state=AssetBaseCfg.InitialStateCfg(**place), **shared)
        else:
            asset = RigidObjectCfg(init_state=RigidObjectCfg.InitialStateCfg(**place), **shared)
            moving.append(name)
        setattr(cfg, name, asset)
    physics = getattr(PhysicsPresets(), spec["physics"])
    with launch_simulation(physics, None):
        sim = SimulationContext(SimulationCfg(dt=DT, device="cpu", physics=physics))
        scene = InteractiveScene(cfg)
        sim.reset()
        every = round(1 / DT / RECORD_HZ)
        poses = [_poses(scene, moving)]
        for step in range(round(spec["seconds"] / DT)):
            scene.write_data_to_sim()
            sim.step(render=False)
            scene.update(DT)
            if (step + 1) % every == 0:
                poses.append(_poses(scene, moving))
        np.save(result, np.array(poses))
    sys.stdout.flush()
    os._exit(0)  # what the engines do at the end of a process can crash, and the poses are written


def _poses(scene, names: list[str]) -> np.ndarray:
    origin = scene.env_origins[0].cpu().numpy()
    rows = np.array([scene[name].data.root_link_pose_w.torch[0].cpu().numpy() for name in names])
    rows[:, :3] -= origin
    return rows


def _floor(path: Path) -> Path:
    from scaffoldlab.usd.writer import UsdWriter

    writer = UsdWriter(path, license="")
    writer.friction("floor", static=0.8, dynamic=0.8, combine="average", stiff=True)
    writer.collider("top", "box", size=(4, 4, 0.2), position=(0, 0, -0.1), friction="floor")
    writer.save()
    return path


if __name__ == "__main__":
    main(*sys.argv[1:])
