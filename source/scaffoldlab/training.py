"""Trains a policy with rsl_rl, keeps the best checkpoint by evaluation, and resumes what was cut off.

``isaaclab train`` trains as well; this adds periodic evaluation on validation states, a live progress and an early
stop. Both write the same log layout, so ``isaaclab play --checkpoint latest`` finds either.
"""

from __future__ import annotations

import contextlib
import io
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from isaaclab_rl.entrypoints.common import write_run_manifest
from isaaclab_rl.rsl_rl import (
    RslRlVecEnvWrapper,
    check_rsl_rl_version,
    create_rsl_rl_runner,
    handle_deprecated_rsl_rl_cfg,
)
from isaaclab_tasks.utils import resolve_task_config

from scaffoldlab.errors import ScaffoldError
from scaffoldlab.evaluation.rollout import Policy, run_episodes
from scaffoldlab.files import write_atomic
from scaffoldlab.specs.models import load_task
from scaffoldlab.terms.observations import plan_of

if TYPE_CHECKING:
    from isaaclab.envs import ManagerBasedRLEnv
    from rsl_rl.runners import OnPolicyRunner

    from scaffoldlab.plans.library import PlanLibrary

BEST, RESUME, STATE = "model_best.pt", "resume.pt", "training.json"
"""Isaac Lab's ``--checkpoint latest|best`` looks for model_*.pt, and shall find the best one."""


@dataclass(frozen=True, kw_only=True)
class TrainingLimits:
    """When training stops, and how often it is evaluated.

    Attributes:
        iterations: PPO iterations at most.
        seconds: Wall time at most [s], evaluation included, over all resumed parts.
        target: Stops early once the deterministic policy reaches it on the validation states.
        evaluate_every: Iterations between evaluations.
        evaluate_above: No evaluation before the success of training episodes reaches this.
    """

    iterations: int = 200
    seconds: float = 240.0
    target: float = 0.95
    evaluate_every: int = 15
    evaluate_above: float = 0.5


@dataclass
class TrainingState:
    """What a resumed run must know; saved beside the checkpoints as JSON."""

    iteration: int = 0
    wall_seconds: float = 0.0
    best_score: float = -1.0
    best_iteration: int = -1
    finished: bool = False
    curve: list[dict[str, Any]] = field(default_factory=list)


class Trainer:
    """One training run of a task in an open env.

    Args:
        env: The env; its plan command samples from ``library`` from now on.
        task: Task name.
        folder: Run folder; an unfinished run in it is resumed.
        library: Plans to train on.
        validation: Plans, on other states than the test's, that choose the best checkpoint.
        seed: Seed of the policy.
        overrides: Hydra overrides and presets, e.g. ``presets=paper``; those of the env are passed over.
        limits: When to stop.
    """

    def __init__(
        self,
        env: ManagerBasedRLEnv,
        *,
        task: str,
        folder: Path,
        library: PlanLibrary,
        validation: PlanLibrary,
        seed: int,
        overrides: list[str],
        limits: TrainingLimits,
    ):
        self.env, self.task, self.folder, self.limits = env, task, folder, limits
        self.library, self.validation = library, validation
        torch.manual_seed(seed)
        self.runner = make_runner(env, task, folder=folder, seed=seed, overrides=overrides)
        # rsl_rl would leave a checkpoint behind after every call of learn().
        # Its type says path; torch.save, to which it goes, takes an open file as well.
        self._write_checkpoint: Callable[..., None] = self.runner.save
        self.runner.save = lambda *args, **kwargs: None
        self.state = TrainingState()
        if (folder / RESUME).is_file() and (folder / STATE).is_file():
            self._resume()
        self.steps_per_iteration = self.runner.cfg["num_steps_per_env"] * env.num_envs
        batches = -(-2 * len(validation) // env.num_envs)  # of two policies
        self.evaluation_steps = batches * plan_of(env).steps * env.num_envs
        plan_of(env).use(library)
        env.reset()

    def run(self, on_iteration: Callable[[TrainingState], None] | None = None) -> Path:
        """Trains until a limit is reached and returns the path of the best checkpoint."""
        self._watch(on_iteration)
        self._started = time.monotonic() - self.state.wall_seconds
        self._in_step = True
        while not (self.state.finished or self._done()):
            count = min(self.limits.evaluate_every, self._left())
            with _stdout_to(self.folder / "train.log"):
                # Cutting episodes short at random takes the envs out of step after the reset of all of them.
                self.runner.learn(count, init_at_random_ep_len=self._in_step)
            self._in_step = False
            # rsl_rl leaves the counter at the last iteration it did, not at the next one to do.
            self.runner.current_learning_iteration += 1
            if self._recent_success() >= self.limits.evaluate_above or self._done(before_evaluation=True):
                self._evaluate()
            self._save()
        if self.state.best_iteration < 0:
            self._evaluate()
        self.state.finished = True
        self._save()
        return self.folder / BEST

    # --- evaluation and checkpoints -----------------------------------------------------------------------------

    def _evaluate(self) -> None:
        deterministic, sampled = run_episodes(
            self.env,
            self.validation,
            {"deterministic": deterministic_policy(self.runner), "sampled": sampled_policy(self.runner)},
        )
        self.runner.alg.train_mode()
        point = self.state.curve[-1]
        point["eval_success"], point["eval_sampled_success"] = deterministic.success_rate, sampled.success_rate
        # Deterministic success counts; sampled success and tracking break ties.
        score = deterministic.success_rate + 0.1 * sampled.success_rate - 0.1 * float(deterministic.error.mean())
        if score > self.state.best_score:
            self.state.best_score, self.state.best_iteration = score, self.state.iteration
            self._checkpoint(self.folder / BEST)

    def _checkpoint(self, path: Path) -> None:
        content = io.BytesIO()
        self._write_checkpoint(content, infos={"task": self.task, "iteration": self.state.iteration})
        write_atomic(path, content.getvalue())

    def _save(self) -> None:
        self.state.wall_seconds = time.monotonic() - self._started
        self._checkpoint(self.folder / RESUME)
        write_atomic(self.folder / STATE, json.dumps(asdict(self.state), indent=1).encode())

    def _resume(self) -> None:
        self.state = TrainingState(**json.loads((self.folder / STATE).read_text()))
        load_checkpoint(self.runner, self.folder / RESUME)
        self.runner.current_learning_iteration = self.state.iteration
        self.env.common_step_counter = self.state.iteration * self.runner.cfg["num_steps_per_env"]

    # --- progress -----------------------------------------------------------------------------------------------

    def _watch(self, on_iteration: Callable[[TrainingState], None] | None) -> None:
        """Records a point of the curve whenever rsl_rl logs an iteration."""
        logger = self.runner.logger
        log = logger.log

        def log_and_record(**kwargs: Any) -> None:
            extras = list(logger.ep_extras)
            log(**kwargs)
            seconds = kwargs["collect_time"] + kwargs["learn_time"]
            self.state.iteration += 1
            self.state.wall_seconds = time.monotonic() - self._started
            self.state.curve.append(
                {
                    "env_steps": self.state.iteration * self.steps_per_iteration,
                    "wall_seconds": self.state.wall_seconds,
                    "train_success": _mean(extras, "Metrics/plan/success"),
                    "completed": _mean(extras, "Metrics/plan/completed"),
                    "tracking_error_m": _mean(extras, "Metrics/plan/tracking_error"),
                    "delta_m": _mean(extras, "Curriculum/threshold"),
                    "steps_per_second": self.steps_per_iteration / seconds,
                    "eval_success": None,
                    "eval_sampled_success": None,
                }
            )
            if on_iteration:
                on_iteration(self.state)

        logger.log = log_and_record

    def _recent_success(self) -> float:
        values = [p["train_success"] for p in self.state.curve[-3:] if p["train_success"] is not None]
        return sum(values) / len(values) if values else 0.0

    def _left(self) -> int:
        seconds = time.monotonic() - self._started
        return iterations_left(self.limits, self.state, seconds, self.steps_per_iteration, self.evaluation_steps)

    def _done(self, before_evaluation: bool = False) -> bool:
        reached = [p for p in self.state.curve[-1:] if p["eval_success"] is not None]
        enough = any(p["eval_success"] >= self.limits.target for p in reached)
        return self._left() < 1 or (enough and not before_evaluation)


def iterations_left(
    limits: TrainingLimits, state: TrainingState, seconds: float, steps_per_iteration: int, evaluation_steps: int
) -> int:
    """Iterations that the limits still allow at the pace of the last one, the evaluation after them included.

    Args:
        limits: When training stops.
        state: What was done so far.
        seconds: Wall time of that [s].
        steps_per_iteration: Env steps of an iteration, all envs together.
        evaluation_steps: Those of an evaluation; they take no longer than as many of training.
    """
    left = limits.iterations - state.iteration
    if not state.curve:
        return left
    steps = state.curve[-1]["steps_per_second"] * (limits.seconds - seconds) - evaluation_steps
    return min(left, int(steps // steps_per_iteration))


def make_runner(
    env: ManagerBasedRLEnv, task: str, *, folder: Path | None, seed: int, overrides: list[str]
) -> OnPolicyRunner:
    """An rsl_rl runner with the agent configuration of a task; without a folder it logs nothing."""
    env_id = load_task(task).task.env_id
    agent = [o for o in overrides if o.startswith(("agent.", "presets="))]
    _, cfg = resolve_task_config(env_id, "rsl_rl_cfg_entry_point", overrides=agent)
    cfg = handle_deprecated_rsl_rl_cfg(cfg, check_rsl_rl_version())  # type: ignore[arg-type]
    cfg.seed, cfg.device = seed, str(env.device)
    if folder is not None:
        write_run_manifest(str(folder), library="rsl_rl", task=env_id, metadata={"agent": "rsl_rl_cfg_entry_point"})
    with contextlib.redirect_stdout(None):
        return create_rsl_rl_runner(RslRlVecEnvWrapper(env), cfg, log_dir=str(folder) if folder else None)  # type: ignore[return-value]


def load_checkpoint(runner: OnPolicyRunner, path: Path) -> None:
    """Loads a checkpoint into a runner.

    Raises:
        ScaffoldError: Missing or unreadable file, or a policy of another observation or action size.
    """
    if not path.is_file():
        raise ScaffoldError(f"checkpoint {path}: no such file. Train one with `scaffoldlab train` or `isaaclab train`.")
    try:
        runner.load(str(path), map_location=runner.device)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if "size mismatch" in line or "key" in line]
        detail = lines[0] if lines else str(error).splitlines()[0]
        raise ScaffoldError(
            f"checkpoint {path}: it does not fit this env, whose policy sees "
            f"{runner.env.unwrapped.observation_manager.group_obs_dim['policy'][0]} numbers: {detail}. "
            "It was trained on another task, horizon or finger setting: give the same overrides as in training."
        ) from None
    except Exception as error:
        raise ScaffoldError(f"checkpoint {path}: not a readable rsl_rl checkpoint ({error}).") from None


def deterministic_policy(runner: OnPolicyRunner) -> Policy:
    """The mean action of the policy."""
    runner.alg.eval_mode()
    return lambda observations, plan: runner.alg.actor(_tensordict(observations))


def sampled_policy(runner: OnPolicyRunner) -> Policy:
    """An action drawn from the policy, as in training."""
    runner.alg.eval_mode()
    return lambda observations, plan: runner.alg.actor(_tensordict(observations), stochastic_output=True)


def _tensordict(observations: dict[str, torch.Tensor]) -> Any:
    from tensordict import TensorDict

    return TensorDict(observations, batch_size=[len(observations["policy"])])


def _mean(extras: list[dict[str, Any]], key: str) -> float | None:
    values = [float(e[key]) for e in extras if key in e]
    return sum(values) / len(values) if values else None


@contextlib.contextmanager
def _stdout_to(path: Path):
    """Sends what rsl_rl prints to a file: the screen shows the progress."""
    with path.open("a") as log, contextlib.redirect_stdout(log):
        yield
