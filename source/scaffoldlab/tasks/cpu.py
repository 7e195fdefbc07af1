"""Every workaround that a machine without CUDA needs, each with its reason; applied when tasks are registered."""

import os


def apply() -> None:
    """Applies the workarounds; does nothing where there is CUDA."""
    import warp as wp

    wp.config.log_level = wp.LOG_WARNING
    if wp.is_cuda_available():
        return
    _pinned_memory()
    _physx_threads()
    _torch_threads()


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _pinned_memory() -> None:
    """OvPhysX asks Warp for pinned host memory, which only exists with CUDA: give it ordinary memory."""
    from warp._src.context import CpuDefaultAllocator, CpuPinnedAllocator

    CpuPinnedAllocator.allocate = CpuDefaultAllocator.allocate
    CpuPinnedAllocator.deallocate = CpuDefaultAllocator.deallocate


def _physx_threads() -> None:
    """OvPhysX starts 8 threads whatever the machine; on 2 cores that costs a third of the speed."""
    from isaaclab_ov.physics import ovphysx_manager

    import_ovphysx = ovphysx_manager.import_ovphysx

    def import_with_threads():
        module = import_ovphysx()
        if not hasattr(module.PhysXConfig, "scaffoldlab_threads"):
            config = module.PhysXConfig

            def with_threads(*args, **kwargs):
                return config(*args, **{**kwargs, "num_threads": cores()})

            with_threads.scaffoldlab_threads = cores()  # type: ignore[attr-defined]
            module.PhysXConfig = with_threads
        return module

    ovphysx_manager.import_ovphysx = import_with_threads


def _torch_threads() -> None:
    """Torch's thread pool fights the simulator's for two cores: updates are 3 to 100 times slower."""
    import torch

    torch.set_num_threads(max(1, cores() // 2))
