"""The three physics engines, each with the settings of the paper's Table 2 where it has them."""

# A preset stands where its value will be; Isaac Lab resolves it, the type checker cannot.
# pyright: reportArgumentType=false

from isaaclab.utils import configclass
from isaaclab_newton.physics import MJWarpSolverCfg, NewtonCfg
from isaaclab_ov.physics import OvPhysxCfg
from isaaclab_physx.physics import PhysxCfg
from isaaclab_tasks.utils import PresetCfg

PHYSICS_DT = 1 / 120
DECIMATION = 2
"""120 Hz physics, 60 Hz control (Table 2)."""

GPU_BUFFERS = dict(
    gpu_max_rigid_contact_count=2048 * 2048 * 8,
    gpu_max_rigid_patch_count=2048 * 2048 * 2,
    gpu_found_lost_pairs_capacity=2**27,
)


@configclass
class PhysicsPresets(PresetCfg):
    """``physics=ovphysx`` (default), ``newton_mjwarp`` or ``isaacsim_physx``."""

    ovphysx: OvPhysxCfg = OvPhysxCfg(**GPU_BUFFERS)
    newton_mjwarp: NewtonCfg = NewtonCfg(
        solver_cfg=MJWarpSolverCfg(
            njmax=400,
            nconmax=100,
            iterations=20,
            ls_iterations=20,
            cone="pyramidal",
            impratio=10.0,
            integrator="implicitfast",
        ),
        num_substeps=1,
    )
    isaacsim_physx: PhysxCfg = PhysxCfg(bounce_threshold_velocity=2.0, **GPU_BUFFERS)
    default: OvPhysxCfg = ovphysx
