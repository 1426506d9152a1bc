"""The denoiser and the text encoder, trained together on cached latents.

Owns the diffusion stage: the networks' shapes, the noise schedule, the loss and the loop. A run is
a ``Denoiser`` whose whole state goes to one file, so that it may stop and go on at any step.
"""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from models.shapes.autoencoder import Cache
from models.shapes.pace import Pace
from models.shapes.tokenizer import MAX_TOKENS

log = logging.getLogger(__name__)

WIDTH = 64
BATCH = 32
PEAK_RATE = 1e-3
WARMUP_STEPS = 100
EMA_DECAY = 0.999
PROMPT_DROPOUT = 0.1
TIMESTEPS = 1000
NOISINESS = 0.4
"""Exponent that puts 43 % of the timesteps above 800: only there must the prompt say what is where,
below the noisy picture itself shows it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How long to train (by the clock, or by steps where given) and how often to save."""

    minutes: float
    steps: int | None = None
    save_every_s: float = 240.0


def new_scheduler() -> Any:
    """Stable Diffusion's noise schedule with v-prediction; starts at the last timestep."""
    return DDIMScheduler(
        num_train_timesteps=TIMESTEPS,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        steps_offset=1,
        clip_sample=False,
        set_alpha_to_one=True,
    )


def new_unet() -> Any:
    """Three resolutions, about 5.5 M parameters.

    Attention in the highest one would double the time. The lowest one, 4x4 cells, is where a cell
    knows from the border where it is: without it "left" and "right" were not learnt.
    """
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(WIDTH, 2 * WIDTH, 2 * WIDTH),
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def new_text_encoder(tokenizer: CLIPTokenizer) -> Any:
    """Two causal transformer layers over at most ``MAX_TOKENS`` tokens."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=MAX_TOKENS,
        projection_dim=WIDTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


class Denoiser:
    """Networks, their running average and optimiser; invariant: ``step`` updates were applied."""

    def __init__(self, tokenizer: CLIPTokenizer, seed: int) -> None:
        torch.manual_seed(seed)
        self.tokenizer = tokenizer
        self.scheduler = new_scheduler()
        self.networks = torch.nn.ModuleDict(
            {"unet": new_unet(), "text_encoder": new_text_encoder(tokenizer)}
        )
        self.average: dict[str, Tensor] = {}
        self.forget_average()
        self.optimiser = torch.optim.AdamW(
            self.networks.parameters(), lr=PEAK_RATE, betas=(0.9, 0.99), weight_decay=1e-2
        )
        self.step = 0
        self.elapsed_s = 0.0

    def save(self, path: Path) -> None:
        """Write the whole state; a broken write leaves the previous file in place."""
        state = {
            "networks": self.networks.state_dict(),
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "elapsed_s": self.elapsed_s,
        }
        torch.save(state, path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)

    def load(self, path: Path) -> None:
        """Go on from a file that ``save`` wrote."""
        state = torch.load(path, weights_only=True)
        self.networks.load_state_dict(state["networks"])
        self.average = state["average"]
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.elapsed_s = state["step"], state["elapsed_s"]

    def forget_average(self) -> None:
        """Start the running average anew from the networks as they are."""
        self.average = {key: value.clone() for key, value in self.networks.state_dict().items()}

    def averaged(self) -> tuple[Any, Any]:
        """Fresh copies of the UNet and the text encoder that hold the running average."""
        unet, text_encoder = new_unet(), new_text_encoder(self.tokenizer)
        both = torch.nn.ModuleDict({"unet": unet, "text_encoder": text_encoder})
        both.load_state_dict(self.average)
        return unet.eval(), text_encoder.eval()

    def update(self, latents: Tensor, prompt_ids: Tensor, done: float) -> float:
        """One optimiser step on scaled latents (batch, 4, h, w); ``done`` is 0 to 1."""
        rate = PEAK_RATE * min(1.0, (self.step + 1) / WARMUP_STEPS) * _cosine(done)
        self.optimiser.param_groups[0]["lr"] = rate
        loss = self._loss(latents, prompt_ids)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.networks.parameters(), 1.0)
        self.optimiser.step()
        self.step += 1
        self._average()
        return loss.item()

    def _loss(self, latents: Tensor, prompt_ids: Tensor) -> Tensor:
        """Mean squared error of the velocity."""
        timesteps = random_timesteps(len(latents))
        noise = torch.randn_like(latents)
        noisy = self.scheduler.add_noise(latents, noise, timesteps)
        target = self.scheduler.get_velocity(latents, noise, timesteps)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            states = self.networks["text_encoder"](prompt_ids)[0]
            velocity = self.networks["unet"](noisy, timesteps, states).sample
        return torch.nn.functional.mse_loss(velocity.float(), target)

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(EMA_DECAY, (1 + self.step) / (10 + self.step))
        for key, value in self.networks.state_dict().items():
            if value.is_floating_point():
                self.average[key].lerp_(value, 1 - decay)
            else:
                self.average[key].copy_(value)


def random_timesteps(count: int) -> Tensor:
    """Stratified over the batch; the noisier, the more often."""
    strata = (torch.arange(count) + torch.rand(count)) / count
    return (TIMESTEPS * strata**NOISINESS).long().clamp(max=TIMESTEPS - 1)


def _cosine(done: float) -> float:
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


class Batches:
    """Random batches of one canvas each, canvases in proportion to their cached pictures."""

    def __init__(
        self,
        cache: Cache,
        tokenizer: CLIPTokenizer,
        *,
        scale: float,
        size: int = BATCH,
    ) -> None:
        self._size = size
        self._parts = list(cache.values())
        self._sizes = [len(part.prompts) for part in self._parts]
        self._scale = scale
        self._ids = [_token_ids(tokenizer, part.prompts) for part in self._parts]
        self._empty = _token_ids(tokenizer, [""])[0]

    def draw(self, rng: Random) -> tuple[Tensor, Tensor]:
        """Scaled latents and token ids; one prompt in ten is empty, for guidance."""
        [index] = rng.choices(range(len(self._parts)), weights=self._sizes)
        rows = torch.tensor([rng.randrange(self._sizes[index]) for _ in range(self._size)])
        ids = self._ids[index][rows]
        dropped = torch.tensor([rng.random() < PROMPT_DROPOUT for _ in range(self._size)])
        ids[dropped] = self._empty
        return self._parts[index].latents[rows].float() * self._scale, ids


def _token_ids(tokenizer: CLIPTokenizer, prompts: list[str]) -> Tensor:
    padded = tokenizer(
        prompts, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt"
    )
    ids: Tensor = padded.input_ids
    return ids


def train_denoiser(
    denoiser: Denoiser,
    batches: Batches,
    budget: Budget,
    pace: Pace,
    save: Callable[[Denoiser], None],
) -> list[float]:
    """Train until the budget is spent, calling ``save`` now and then; returns the losses."""
    rng = Random(f"denoiser {denoiser.step}")
    losses: list[float] = []
    clock = saved = time.monotonic()
    done = 0.0
    while done < 1.0:
        latents, ids = batches.draw(rng)
        pace.apply()
        losses.append(denoiser.update(latents, ids, done))
        now = time.monotonic()
        denoiser.elapsed_s += now - clock
        clock = now
        by_clock = denoiser.elapsed_s / 60 / budget.minutes
        done = denoiser.step / budget.steps if budget.steps else by_clock
        if denoiser.step % 50 == 0:
            recent = sum(losses[-50:]) / len(losses[-50:])
            minutes = denoiser.elapsed_s / 60
            log.info("denoiser step %d, %.1f min, loss %.4f", denoiser.step, minutes, recent)
        if now - saved > budget.save_every_s:
            save(denoiser)
            saved = time.monotonic()
    save(denoiser)
    return losses
