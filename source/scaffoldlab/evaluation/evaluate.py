"""Evaluates a policy beside its baselines on unseen initial states, films it, and writes the report."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scaffoldlab.errors import ScaffoldError
from scaffoldlab.evaluation.episodes import REPLANNED, TIMED_CLOSES, Episodes
from scaffoldlab.evaluation.policies import load_policies
from scaffoldlab.evaluation.report import plan_source, write_report
from scaffoldlab.evaluation.rollout import BASELINES, run_episodes
from scaffoldlab.evaluation.video import tiled, write_mp4
from scaffoldlab.plans.draw import draw_plan
from scaffoldlab.specs.models import load_task
from scaffoldlab.tasks.rendering import add_camera, camera_of, take_pictures
from scaffoldlab.tasks.simulation import make_cfg, open_cfg, physics_name

if TYPE_CHECKING:
    from isaaclab.envs import ManagerBasedRLEnv

    from scaffoldlab.evaluation.replan import Replanner
    from scaffoldlab.evaluation.rollout import Policy
    from scaffoldlab.plans.library import PlanLibrary

MOST_ENVS = {"cpu": 256, "cuda": 4096}
"""Envs at once; on a CPU more are no faster, and take longer to build."""

MOST_PICTURED = {"cpu": 16, "cuda": 256}
"""Envs at once where a model plans again: each has a camera, and all are rendered whenever one of them is."""

VIDEO_SIDE, VIDEO_EVERY, VIDEO_EPISODES = 320, 4, 8
"""Side of a film [px], control steps per frame, episodes filmed."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One evaluation: what is run, on what, and where the report goes.

    Attributes:
        task: Task name.
        checkpoint: An rsl_rl checkpoint, or the ``policy.pt`` of ``scaffoldlab imitate``.
        plans: Plans of unseen initial states.
        trials: Episodes per state and policy.
        seed: Seed of sampled actions.
        device: As in :func:`~scaffoldlab.tasks.simulation.make_cfg`.
        overrides: Hydra overrides and presets, as in training.
        folder: Where the report goes.
        training: The learning curve, if known.
        replanner: Runs the deterministic policy once more, with this one planning again in the middle of episodes.
        filmed: The report has a video and pictures of plans, for which some episodes are run again with cameras.
    """

    task: str
    checkpoint: Path
    plans: PlanLibrary
    trials: int = 1
    seed: int = 0
    device: str | None = None
    overrides: tuple[str, ...] = ()
    folder: Path
    training: list[dict[str, Any]] = field(default_factory=list)
    replanner: Replanner | None = None
    filmed: bool = True

    def run(self, progress: Callable[[str, int, int], None] | None = None) -> dict[str, Any]:
        """Runs all episodes, films some, writes the report and returns its metrics.

        Args:
            progress: Called with (stage, done, total).
        """
        say = progress or (lambda stage, done, total: None)
        rows = (2 + len(BASELINES)) * len(self.plans)
        cfg = make_cfg(self.task, num_envs=rows, device=self.device, seed=self.seed, overrides=self.overrides)
        physics, device = physics_name(cfg), cfg.sim.device
        batches = math.ceil(rows / MOST_ENVS[device.split(":")[0]])
        cfg.scene.num_envs = math.ceil(rows / batches)  # batches of about the same size
        with open_cfg(cfg, load_task(self.task).task.env_id) as env:
            started = time.monotonic()
            episodes = self.episodes(env, lambda done, total: say("episodes", done, total))
            seconds = time.monotonic() - started
        if self.replanner is not None and self.replanner.planner.needs_image:
            with self.pictured_env(self.replanner) as env:
                policy, started = self._policies(env)["deterministic"], time.monotonic()
                episodes += self._replanned(env, policy, lambda done, total: say("replanned", done, total))
                seconds += time.monotonic() - started
        video, pictures = None, None
        if self.filmed:
            video, pictures = self.film(episodes[0], lambda done, total: say("film", done, total))
        metrics = {
            "task": self.task,
            "instruction": load_task(self.task).task.instruction,
            "plan_source": plan_source(self.plans),
            "physics": physics,
            "device": device,
            "seed": self.seed,
            "trials": self.trials,
            "env_steps": sum(e.error.size for e in episodes),
            "wall_seconds": round(seconds, 1),
            "states_without_plan": states_without_plan(self.plans),
            "best_timed_close_success_rate": max(e.success_rate for e in episodes if e.policy in TIMED_CLOSES),
            "training_env_steps": self.training[-1]["env_steps"] if self.training else None,
            "training_wall_seconds": round(self.training[-1]["wall_seconds"], 1) if self.training else None,
            "checkpoint": str(self.checkpoint),
            "plans_digest": self.plans.digest,
        }
        if self.replanner is not None:
            again = next(e for e in episodes if e.policy == REPLANNED)
            metrics |= {
                "replanner": self.replanner.planner.name,
                "replanner_model": self.replanner.model or None,
                "replans": self.replanner.count,
                "replans_failed": len(self.replanner.failures),
                "replanned_success_rate": again.success_rate,
                "replanned_success_stderr": again.success_stderr,
            }
        return write_report(
            self.folder,
            instruction=load_task(self.task).task.instruction,
            metrics=metrics,
            episodes=episodes,
            training=self.training or None,
            plan_pictures=pictures,
            video=video,
        )

    def episodes(self, env: ManagerBasedRLEnv, on_step: Callable[[int, int], None] | None = None) -> list[Episodes]:
        """Deterministic and sampled policy, zero action and the timed closes, on the same states; and the policy with
        a planner that plans again, unless it needs pictures."""
        policies = self._policies(env)
        episodes = run_episodes(env, self.plans, policies | BASELINES, trials=self.trials, on_step=on_step)
        if self.replanner is not None and not self.replanner.planner.needs_image:
            episodes += self._replanned(env, policies["deterministic"], on_step)
        return episodes

    def _replanned(
        self, env: ManagerBasedRLEnv, policy: Policy, on_step: Callable[[int, int], None] | None
    ) -> list[Episodes]:
        return run_episodes(
            env, self.plans, {REPLANNED: policy}, trials=self.trials, replanner=self.replanner, on_step=on_step
        )

    @contextmanager
    def pictured_env(self, replanner: Replanner) -> Iterator[ManagerBasedRLEnv]:
        """An env of few envs with cameras, which take the replanner's pictures."""
        cfg = make_cfg(self.task, num_envs=1, device=self.device, seed=self.seed, overrides=self.overrides)
        rows, most = self.trials * len(self.plans), MOST_PICTURED[cfg.sim.device.split(":")[0]]
        cfg.scene.num_envs = math.ceil(rows / math.ceil(rows / most))
        spec = load_task(self.task).scene.camera
        add_camera(cfg, spec)
        with open_cfg(cfg, load_task(self.task).task.env_id) as env:
            replanner.pictures = partial(take_pictures, env, camera_of(spec))
            yield env

    def film(self, result: Episodes, on_step: Callable[[int, int], None]) -> tuple[Path, dict[int, np.ndarray]]:
        """Films episodes again, failures first, and draws their plans.

        Returns:
            The video, and pictures of the filmed plans with their tracks, by plan number.
        """
        order = np.argsort(result.success, kind="stable")
        failed = [int(result.plan_id[i]) for i in order if not result.success[i]][: VIDEO_EPISODES // 2]
        succeeded = [int(result.plan_id[i]) for i in order if result.success[i]][: VIDEO_EPISODES - len(failed)]
        numbers = list(dict.fromkeys(succeeded + failed))
        chosen = self.plans.subset(numbers)
        composition = load_task(self.task)
        cfg = make_cfg(self.task, num_envs=len(chosen), device=self.device, seed=self.seed, overrides=self.overrides)
        spec = composition.scene.camera
        add_camera(cfg, spec, size=VIDEO_SIDE)
        camera = camera_of(spec, size=VIDEO_SIDE)
        pictures: dict[int, np.ndarray] = {}
        frames: list[list[np.ndarray]] = []
        with open_cfg(cfg, composition.task.env_id) as env:

            def shoot(step: int, steps: int) -> None:
                if step % VIDEO_EVERY == 0:
                    images = take_pictures(env, camera)
                    frames.append([image.rgb for image in images])
                    if step == 0:
                        drawn = (draw_plan(i, p) for i, p in zip(images, chosen.plans, strict=True))
                        pictures.update(zip(numbers, drawn, strict=True))
                on_step(step, steps)

            policy = self._policies(env)["deterministic"]
            (filmed,) = run_episodes(env, chosen, {"deterministic": policy}, on_step=shoot)
        path = self.folder / "episodes.mp4"
        clips = [np.stack(clip) for clip in zip(*frames, strict=True)]
        write_mp4(tiled(clips, filmed), path, fps=60 // VIDEO_EVERY)
        return path, pictures

    def _policies(self, env: ManagerBasedRLEnv) -> dict[str, Policy]:
        return load_policies(env, self.task, self.checkpoint, seed=self.seed, overrides=self.overrides)


def states_without_plan(library: PlanLibrary) -> int | None:
    """Initial states for which the planner of a library had no plan; None if it is only a part, or does not say."""
    asked, failed = library.header.get("asked"), len(library.header.get("failures", ()))
    return failed if asked == len(library) + failed else None


def first_plans(library: PlanLibrary, episodes: int) -> PlanLibrary:
    """The first plans of a library, as many as there are to be episodes.

    Raises:
        ScaffoldError: The library has fewer.
    """
    if not 1 <= episodes <= len(library):
        raise ScaffoldError(
            f"--episodes is {episodes}, but the library has {len(library)} plans; allowed: 1..{len(library)}. "
            f"Make more with `scaffoldlab plan --num-plans {episodes}`, or repeat each with --trials."
        )
    return library.subset(range(episodes))
