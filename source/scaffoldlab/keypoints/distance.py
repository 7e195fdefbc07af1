"""How far the tracked keypoints are from the plan, for all envs at once: one Warp kernel, and its twin in torch."""

import functools
from typing import Any, Final, Literal, NamedTuple, get_args, no_type_check

import torch
import warp as wp

from scaffoldlab.errors import ScaffoldError, unknown_name

Reduction = Literal["mean", "any"]


class KeypointDistance:
    """Keypoint positions, distances, tracking reward and termination mask (Scaffolds, eq. 3), in one launch.

    All tensors are allocated once, on ``device``, and are shared with the kernel. Fill the inputs in place
    (``distance.target.copy_(...)``, ``distance.body_poses[env_ids] = ...``), call :meth:`compute`, read the outputs;
    they are overwritten by the next call. Poses, targets and positions share one frame, world or env.

    Inputs:
        body_poses: Poses of the bodies, xyz [m] + quat_xyzw of unit length, shape (num_envs, num_bodies, 7).
            Starts at the identity.
        body_index: Body that carries each keypoint, 0..num_bodies - 1, shape (num_envs, num_keypoints), int32.
            Not checked on the step path: another value reads foreign memory.
        point_b: Keypoints in the frames of their bodies [m], shape (num_envs, num_keypoints, 3).
        target: Where the plan wants them [m], shape (num_envs, num_keypoints, 3).
        delta: Error above which an episode ends [m], shape (1,); a curriculum may ``fill_`` it.

    Outputs:
        position: Keypoint positions [m], shape (num_envs, num_keypoints, 3).
        distance: Distances to the targets [m], shape (num_envs, num_keypoints).
        error: Mean distance, or the largest one under the reduction ``"any"`` [m], shape (num_envs,).
        reward: exp(-beta * mean distance), in 0..1, shape (num_envs,).
        exceeded: Whether the error is above delta, shape (num_envs,), bool. True as well for an error that is NaN.
    """

    def __init__(
        self,
        *,
        num_envs: int,
        num_keypoints: int,
        num_bodies: int,
        delta: float,
        beta: float = 20.0,
        reduction: Reduction = "mean",
        device: str = "cpu",
    ) -> None:
        """Allocates the buffers, compiles the kernel (about 1 s, then cached) and records its launch.

        Args:
            num_envs: N, envs.
            num_keypoints: K, keypoints of an env.
            num_bodies: B, bodies of an env that may carry keypoints.
            delta: First value of the termination threshold [m].
            beta: Sharpness of the reward [1/m]; Scaffolds' code has 20.
            reduction: What delta limits: the mean distance (the paper) or that of any keypoint (its code).
            device: ``"cpu"``, ``"cuda:0"``, ...

        Raises:
            ScaffoldError: A size is below 1, or the reduction is unknown.
        """
        if reduction not in get_args(Reduction):
            raise unknown_name("reduction", reduction, get_args(Reduction), "KeypointDistance")
        sizes = {"num_envs": num_envs, "num_keypoints": num_keypoints, "num_bodies": num_bodies}
        if min(sizes.values()) < 1:
            raise ScaffoldError(f"KeypointDistance: got {sizes}; allowed: 1 or more of each.")

        zeros = functools.partial(torch.zeros, device=device)
        self.body_poses: Final = zeros(num_envs, num_bodies, 7)
        self.body_poses[..., 6] = 1.0
        self.body_index: Final = zeros(num_envs, num_keypoints, dtype=torch.int32)
        self.point_b: Final = zeros(num_envs, num_keypoints, 3)
        self.target: Final = zeros(num_envs, num_keypoints, 3)
        self.delta: Final = torch.full((1,), delta, device=device)
        self.position: Final = zeros(num_envs, num_keypoints, 3)
        self.distance: Final = zeros(num_envs, num_keypoints)
        self.error: Final = zeros(num_envs)
        self.reward: Final = zeros(num_envs)
        self.exceeded: Final = zeros(num_envs, dtype=torch.bool)

        wp.init()  # from_torch needs it
        points, scalars, indices = _row_types(num_keypoints)
        self._launch: Any = wp.launch(
            _keypoint_distance_kernel(num_keypoints, reduction),
            dim=num_envs,
            inputs=[
                wp.from_torch(self.body_poses, dtype=wp.transformf),
                wp.from_torch(self.body_index, dtype=indices),
                wp.from_torch(self.point_b, dtype=points),
                wp.from_torch(self.target, dtype=points),
                wp.from_torch(self.delta),
                beta,
            ],
            outputs=[
                wp.from_torch(self.position, dtype=points),
                wp.from_torch(self.distance, dtype=scalars),
                wp.from_torch(self.error),
                wp.from_torch(self.reward),
                wp.from_torch(self.exceeded),
            ],
            device=wp.device_from_torch(self.delta.device),
            record_cmd=True,
        )

    def compute(self) -> None:
        """Fills the outputs from the inputs: no allocation, no copy, no synchronisation."""
        self._launch.launch()


def _row_types(num_keypoints: int) -> tuple[type, type, type]:
    """Warp types of one env's row of K points, K scalars and K indices."""
    return (
        wp.types.matrix(shape=(num_keypoints, 3), dtype=wp.float32),
        wp.types.vector(length=num_keypoints, dtype=wp.float32),
        wp.types.vector(length=num_keypoints, dtype=wp.int32),
    )


@functools.cache
def _keypoint_distance_kernel(num_keypoints: int, reduction: Reduction) -> Any:
    """The kernel for K keypoints; K is a constant of it, so that an env's row is one load and the loop unrolls."""
    points, scalars, indices = _row_types(num_keypoints)

    @wp.kernel(enable_backward=False, module="unique")
    @no_type_check  # a kernel is Warp's language, not Python's
    def keypoint_distance(
        body_poses: wp.array2d(dtype=wp.transformf),
        body_index: wp.array(dtype=indices),
        point_b: wp.array(dtype=points),
        target: wp.array(dtype=points),
        delta: wp.array(dtype=wp.float32),
        beta: wp.float32,
        # output
        position: wp.array(dtype=points),
        distance: wp.array(dtype=scalars),
        error: wp.array(dtype=wp.float32),
        reward: wp.array(dtype=wp.float32),
        exceeded: wp.array(dtype=wp.bool),
    ):
        """One thread an env, which loops over its keypoints: the reductions stay in registers, without atomics."""
        env = wp.tid()
        env_index, env_point_b, env_target = body_index[env], point_b[env], target[env]
        env_position, env_distance = points(), scalars()
        total, largest = wp.float32(0.0), wp.float32(0.0)
        for k in range(wp.static(num_keypoints)):
            pose = body_poses[env, env_index[k]]
            point = env_point_b[k]
            imaginary = wp.vec3f(pose[3], pose[4], pose[5])
            # wp.transform_point takes 17 % more of the kernel's time on a CPU than two cross products.
            cross = 2.0 * wp.cross(imaginary, point)
            rotated = point + pose[6] * cross + wp.cross(imaginary, cross)
            moved = rotated + wp.vec3f(pose[0], pose[1], pose[2])
            length = wp.length(moved - env_target[k])
            env_position[k] = moved
            env_distance[k] = length
            total += length
            largest = wp.where(length > largest, length, largest)
        mean = total / wp.float32(wp.static(num_keypoints))
        limited = mean
        if wp.static(reduction == "any"):
            limited = wp.where(wp.isnan(mean), mean, largest)
        position[env] = env_position
        distance[env] = env_distance
        error[env] = limited
        reward[env] = wp.exp(-beta * mean)
        exceeded[env] = not (limited <= delta[0])  # a body that flew off to NaN ends its episode

    return keypoint_distance


class KeypointDistances(NamedTuple):
    """The outputs of :class:`KeypointDistance`, as fresh tensors."""

    position: torch.Tensor
    distance: torch.Tensor
    error: torch.Tensor
    reward: torch.Tensor
    exceeded: torch.Tensor


def keypoint_distance_torch(
    body_poses: torch.Tensor,
    body_index: torch.Tensor,
    point_b: torch.Tensor,
    target: torch.Tensor,
    delta: torch.Tensor,
    *,
    beta: float = 20.0,
    reduction: Reduction = "mean",
) -> KeypointDistances:
    """The same numbers in plain torch: the reference of the tests and of the benchmark.

    Shapes, units and frames are those of :class:`KeypointDistance`.
    """
    pose = body_poses.gather(1, body_index.long().unsqueeze(-1).expand(-1, -1, 7))
    imaginary, real = pose[..., 3:6], pose[..., 6:]
    cross = 2 * torch.linalg.cross(imaginary, point_b)
    position = pose[..., :3] + point_b + real * cross + torch.linalg.cross(imaginary, cross)
    distance = torch.linalg.vector_norm(position - target, dim=-1)
    mean = distance.mean(-1)
    error = mean if reduction == "mean" else distance.amax(-1)
    return KeypointDistances(position, distance, error, torch.exp(-beta * mean), ~(error <= delta))
