"""Diffusion Policy (Chi et al., 2023) on states: denoises a chunk of actions, given the last observations."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from scaffoldlab.files import write_atomic

if TYPE_CHECKING:
    from scaffoldlab.evaluation.rollout import Policy
    from scaffoldlab.imitation.demonstrations import Demonstrations
    from scaffoldlab.terms.plan_command import PlanCommand

KIND = "scaffoldlab diffusion policy"


@dataclass(frozen=True, kw_only=True)
class DiffusionSettings:
    """Sizes of the policy.

    Attributes:
        observation_dim: Size of one observation.
        action_dim: Size of one action.
        history: Observations that it sees.
        horizon: Actions that it denoises at once.
        executed: Actions of a chunk that are carried out before the next one.
        hidden: Width of the denoiser.
        noise_steps: Noise levels in training.
        inference_steps: Denoising steps of a chunk.
    """

    observation_dim: int
    action_dim: int
    history: int = 2
    horizon: int = 16
    executed: int = 8
    hidden: int = 512
    noise_steps: int = 100
    inference_steps: int = 10


class DiffusionPolicy(torch.nn.Module):
    """The denoiser with the normalisation of its inputs and outputs."""

    observation_mean: torch.Tensor
    observation_std: torch.Tensor
    action_low: torch.Tensor
    action_high: torch.Tensor

    def __init__(self, settings: DiffusionSettings):
        super().__init__()
        self.settings = settings
        s = settings
        self.register_buffer("observation_mean", torch.zeros(s.observation_dim))
        self.register_buffer("observation_std", torch.ones(s.observation_dim))
        self.register_buffer("action_low", -torch.ones(s.action_dim))
        self.register_buffer("action_high", torch.ones(s.action_dim))
        inputs = s.history * s.observation_dim + s.horizon * s.action_dim + s.noise_steps
        widths = [inputs, s.hidden, s.hidden, s.hidden]
        layers = [
            layer
            for before, after in pairwise(widths)
            for layer in (torch.nn.Linear(before, after), torch.nn.LayerNorm(after), torch.nn.Mish())
        ]
        self.denoiser = torch.nn.Sequential(*layers, torch.nn.Linear(s.hidden, s.horizon * s.action_dim))
        from diffusers.schedulers.scheduling_ddim import DDIMScheduler  # takes seconds to import

        self.scheduler = DDIMScheduler(
            num_train_timesteps=s.noise_steps, beta_schedule="squaredcos_cap_v2", prediction_type="sample"
        )

    def clean(self, noisy: torch.Tensor, level: torch.Tensor, observations: torch.Tensor) -> torch.Tensor:
        """Normalised actions without their noise, shape (B, horizon, A), at noise levels, shape (B,)."""
        seen = ((observations - self.observation_mean) / self.observation_std).clamp(-5, 5)
        one_hot = torch.nn.functional.one_hot(level, self.settings.noise_steps).float()
        return self.denoiser(torch.cat([seen.flatten(1), noisy.flatten(1), one_hot], -1)).view_as(noisy)

    def loss(self, observations: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """Mean squared error of the denoised actions; predicting them and not the noise needs fewer steps here.

        Args:
            observations: Shape (B, history, O).
            actions: Shape (B, horizon, A).
        """
        clean = 2 * (actions - self.action_low) / (self.action_high - self.action_low) - 1
        noise = torch.randn_like(clean)
        level = torch.randint(0, self.settings.noise_steps, (len(clean),), device=clean.device)
        noisy = self.scheduler.add_noise(clean, noise, cast("torch.IntTensor", level))  # any integers will do
        return torch.nn.functional.mse_loss(self.clean(noisy, level, observations), clean)

    @torch.no_grad()
    def sample(self, observations: torch.Tensor, *, start: float = 1.0) -> torch.Tensor:
        """A chunk of actions, shape (B, horizon, A); ``start`` scales the noise it starts from, 0 for none."""
        s = self.settings
        chunk = start * torch.randn(len(observations), s.horizon, s.action_dim, device=observations.device)
        self.scheduler.set_timesteps(s.inference_steps)
        for level in self.scheduler.timesteps:
            clean = self.clean(chunk, level.expand(len(chunk)).to(chunk.device), observations)
            (chunk, *_) = self.scheduler.step(clean, int(level), chunk, return_dict=False)
        return self.action_low + (chunk.clamp(-1, 1) + 1) / 2 * (self.action_high - self.action_low)

    def save(self, path: Path, **about: Any) -> None:
        """Writes the policy and what is known about it."""
        content = {"kind": KIND, "settings": asdict(self.settings), "weights": self.state_dict(), "about": about}
        write_atomic(path, lambda file: torch.save(content, file))

    @classmethod
    def load(cls, path: Path) -> DiffusionPolicy | None:
        """Reads a policy that :meth:`save` wrote; None if the file is something else."""
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, pickle.UnpicklingError, EOFError):
            return None
        if not isinstance(content, dict) or content.get("kind") != KIND:
            return None
        policy = cls(DiffusionSettings(**content["settings"]))
        policy.load_state_dict(content["weights"])
        return policy.eval()


def train_diffusion(
    demonstrations: Demonstrations,
    *,
    steps: int = 4000,
    batch: int = 256,
    seed: int = 0,
    on_step: Callable[[int, float], None] | None = None,
    **sizes: int,
) -> DiffusionPolicy:
    """Trains a policy on demonstrations; returns the exponential average of its weights.

    Args:
        demonstrations: Whole episodes.
        steps: Gradient steps.
        batch: Chunks in a step.
        seed: Seed of weights, batches and noise.
        on_step: Called with the step and its loss.
        sizes: Fields of :class:`DiffusionSettings` other than the two dimensions.
    """
    torch.manual_seed(seed)
    observations, actions = demonstrations.observations, demonstrations.actions
    settings = DiffusionSettings(observation_dim=observations.shape[-1], action_dim=actions.shape[-1], **sizes)
    policy = DiffusionPolicy(settings)
    flat = observations.flatten(0, 1)
    policy.observation_mean.copy_(flat.mean(0))
    policy.observation_std.copy_(flat.std(0).clamp(min=1e-3))
    low, high = actions.flatten(0, 1).amin(0), actions.flatten(0, 1).amax(0)
    policy.action_low.copy_(low)
    policy.action_high.copy_(torch.maximum(high, low + 1e-3))
    seen, chunks = demonstrations.windows(settings.history, settings.horizon)
    optimizer = torch.optim.AdamW(policy.denoiser.parameters(), lr=3e-4, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    from diffusers.training_utils import EMAModel  # as above

    average = EMAModel(policy.denoiser.parameters(), decay=0.995)
    for step in range(steps):
        rows = torch.randint(0, len(seen), (batch,))
        loss = policy.loss(seen[rows], chunks[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        average.step(policy.denoiser.parameters())
        if on_step:
            on_step(step + 1, float(loss))
    average.copy_to(policy.denoiser.parameters())
    return policy.eval()


def controller(policy: DiffusionPolicy, *, start: float = 1.0) -> Policy:
    """Carries out chunk after chunk; an env at step 0 of its plan starts anew.

    Args:
        policy: The policy; it moves to the device of the observations.
        start: As in :meth:`DiffusionPolicy.sample`.
    """
    history: list[torch.Tensor] = []
    left: list[torch.Tensor] = []

    def act(observations: dict[str, torch.Tensor], plan: PlanCommand) -> torch.Tensor:
        now = observations["policy"]
        if bool((plan.step == 0).all()):
            history.clear()
            left.clear()
        history.append(now)
        del history[: -policy.settings.history]
        if not left:
            seen = torch.stack([history[0]] * (policy.settings.history - len(history)) + history, 1)
            chunk = policy.to(now.device).sample(seen, start=start)
            left.extend(chunk[:, : policy.settings.executed].unbind(1))
        return left.pop(0)

    return act
