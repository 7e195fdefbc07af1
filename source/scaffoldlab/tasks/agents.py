"""PPO for rsl_rl, skrl and rl_games in two presets: ``paper`` (Scaffolds, Table 1) and ``cpu``.

One table of numbers, written out in the words of each library. Without ``presets=`` a machine with CUDA gets
``paper`` and one without gets ``cpu``.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from isaaclab_rl.rsl_rl import RslRlMLPModelCfg, RslRlOnPolicyRunnerCfg
from isaaclab_tasks.utils import preset

from scaffoldlab.specs.models import load_task
from scaffoldlab.tasks.cpu_settings import set_cpu_fields
from scaffoldlab.tasks.ppo import CappedPpoCfg, ClippedGaussianCfg


@dataclass(frozen=True)
class PpoNumbers:
    """Scaffolds, Table 1."""

    hidden: tuple[int, ...] = (512, 512, 512)
    envs: int = 2048
    steps_per_env: int = 24
    iterations: int = 2000
    epochs: int = 5
    mini_batches: int = 16
    learning_rate: float = 3e-4
    max_learning_rate: float = 1e-2
    desired_kl: float = 0.01
    entropy: float = 0.01
    clip: float = 0.2
    gamma: float = 0.99
    lam: float = 0.95
    grad_norm: float = 1.0
    init_std: float = 1.0
    clipped_mean: bool = False
    """Whether the deterministic policy is the mean of the clipped actions (rsl_rl)."""


PAPER = PpoNumbers()
CPU = replace(
    PAPER,
    hidden=(128, 128),
    envs=256,
    iterations=200,
    epochs=3,
    mini_batches=4,
    learning_rate=1e-3,
    max_learning_rate=1e-3,
    entropy=0.0,
    clipped_mean=True,
)


RL_GAMES_ON_CPU = {} if torch.cuda.is_available() else {"torch_compile": False, "torch_threads": 1}
"""Compiling costs 30 s in the first epoch, and its own threads fight the simulator's."""
DEVICE = "cuda:0" if torch.cuda.is_available() else "cpu"


def _presets(make: Any) -> Any:
    default = PAPER if torch.cuda.is_available() else CPU
    return preset(default=make(default), paper=make(PAPER), cpu=make(CPU))


def rsl_rl(task: str) -> Any:
    """Runner configuration of rsl_rl."""

    def make(ppo: PpoNumbers) -> RslRlOnPolicyRunnerCfg:
        distribution = ClippedGaussianCfg if ppo.clipped_mean else RslRlMLPModelCfg.GaussianDistributionCfg
        cfg = RslRlOnPolicyRunnerCfg(
            seed=42,
            device=DEVICE,
            num_steps_per_env=ppo.steps_per_env,
            max_iterations=ppo.iterations,
            save_interval=50,
            experiment_name=task,
            obs_groups={"actor": ["policy"], "critic": ["policy"]},
            actor=RslRlMLPModelCfg(
                hidden_dims=list(ppo.hidden),
                activation="elu",
                obs_normalization=True,
                distribution_cfg=distribution(init_std=ppo.init_std),
            ),
            critic=RslRlMLPModelCfg(hidden_dims=list(ppo.hidden), activation="elu", obs_normalization=True),
            algorithm=CappedPpoCfg(
                max_learning_rate=ppo.max_learning_rate,
                value_loss_coef=1.0,
                use_clipped_value_loss=True,
                clip_param=ppo.clip,
                entropy_coef=ppo.entropy,
                num_learning_epochs=ppo.epochs,
                num_mini_batches=ppo.mini_batches,
                learning_rate=ppo.learning_rate,
                schedule="adaptive",
                gamma=ppo.gamma,
                lam=ppo.lam,
                desired_kl=ppo.desired_kl,
                max_grad_norm=ppo.grad_norm,
                normalize_advantage_per_mini_batch=True,
            ),
        )
        if ppo is CPU:
            set_cpu_fields(load_task(task), "agent", cfg)
        return cfg

    return _presets(make)


def skrl(task: str) -> Any:
    """Agent configuration of skrl, as its YAML would be."""

    def make(ppo: PpoNumbers) -> dict[str, Any]:
        network = [{"name": "net", "input": "OBSERVATIONS", "layers": list(ppo.hidden), "activations": "elu"}]
        return {
            "seed": 42,
            "models": {
                "separate": True,
                "policy": {
                    "class": "GaussianMixin",
                    "clip_actions": False,
                    "clip_log_std": True,
                    "min_log_std": -20.0,
                    "max_log_std": 2.0,
                    "initial_log_std": math.log(ppo.init_std),
                    "network": network,
                    "output": "ACTIONS",
                },
                "value": {"class": "DeterministicMixin", "clip_actions": False, "network": network, "output": "ONE"},
            },
            "memory": {"class": "RandomMemory", "memory_size": -1},
            "agent": {
                "class": "PPO",
                "rollouts": ppo.steps_per_env,
                "learning_epochs": ppo.epochs,
                "mini_batches": ppo.mini_batches,
                "discount_factor": ppo.gamma,
                "lambda": ppo.lam,
                "learning_rate": ppo.learning_rate,
                "learning_rate_scheduler": "KLAdaptiveLR",
                "learning_rate_scheduler_kwargs": {"kl_threshold": ppo.desired_kl, "max_lr": ppo.max_learning_rate},
                "state_preprocessor": "RunningStandardScaler",
                "state_preprocessor_kwargs": None,
                "value_preprocessor": "RunningStandardScaler",
                "value_preprocessor_kwargs": None,
                "random_timesteps": 0,
                "learning_starts": 0,
                "grad_norm_clip": ppo.grad_norm,
                "ratio_clip": ppo.clip,
                "value_clip": ppo.clip,
                "clip_predicted_values": True,
                "entropy_loss_scale": ppo.entropy,
                "value_loss_scale": 1.0,
                "kl_threshold": 0.0,
                "rewards_shaper_scale": 1.0,
                "time_limit_bootstrap": True,
                "experiment": {
                    "directory": task,
                    "experiment_name": "",
                    "write_interval": "auto",
                    "checkpoint_interval": "auto",
                },
            },
            "trainer": {
                "class": "SequentialTrainer",
                "timesteps": ppo.iterations * ppo.steps_per_env,
                "environment_info": "log",
            },
        }

    return _presets(make)


def rl_games(task: str) -> Any:
    """Agent configuration of rl_games, as its YAML would be."""

    def make(ppo: PpoNumbers) -> dict[str, Any]:
        constant = {"name": "const_initializer", "val": math.log(ppo.init_std)}
        return {
            "params": {
                "seed": 42,
                "env": {"clip_observations": 100.0, "clip_actions": 100.0},
                "algo": {"name": "a2c_continuous"},
                "model": {"name": "continuous_a2c_logstd"},
                "network": {
                    "name": "actor_critic",
                    "separate": True,
                    "space": {
                        "continuous": {
                            "mu_activation": "None",
                            "sigma_activation": "None",
                            "mu_init": {"name": "default"},
                            "sigma_init": constant,
                            "fixed_sigma": True,
                        }
                    },
                    "mlp": {
                        "units": list(ppo.hidden),
                        "activation": "elu",
                        "d2rl": False,
                        "initializer": {"name": "default"},
                        "regularizer": {"name": "None"},
                    },
                },
                "load_checkpoint": False,
                "load_path": "",
                "config": {
                    "name": task,
                    "env_name": "rlgpu",
                    "device": DEVICE,
                    "device_name": DEVICE,
                    "multi_gpu": False,
                    **RL_GAMES_ON_CPU,
                    "ppo": True,
                    "mixed_precision": False,
                    "normalize_input": True,
                    "normalize_value": True,
                    "value_bootstrap": True,
                    "num_actors": -1,
                    "reward_shaper": {"scale_value": 1.0},
                    "normalize_advantage": True,
                    "gamma": ppo.gamma,
                    "tau": ppo.lam,
                    "learning_rate": ppo.learning_rate,
                    "lr_schedule": "adaptive",
                    "schedule_type": "legacy",
                    "kl_threshold": ppo.desired_kl,
                    "max_lr": ppo.max_learning_rate,
                    "score_to_win": 100000,
                    "max_epochs": ppo.iterations,
                    "save_best_after": 20,
                    "save_frequency": 50,
                    "print_stats": True,
                    "grad_norm": ppo.grad_norm,
                    "entropy_coef": ppo.entropy,
                    "truncate_grads": True,
                    "e_clip": ppo.clip,
                    "horizon_length": ppo.steps_per_env,
                    "minibatch_size": ppo.envs * ppo.steps_per_env // ppo.mini_batches,
                    "mini_epochs": ppo.epochs,
                    "critic_coef": 1.0,
                    "clip_value": True,
                    "clip_actions": False,
                    "bounds_loss_coef": 0.0001,
                },
            }
        }

    return _presets(make)
