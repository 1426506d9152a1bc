"""Teaching the text encoder what prompts mean, before it sees a picture.

Owns a short supervised stage: from the states at and after the end token, a linear layer must name
every attribute of the scene. The layer is then dropped. Joint training alone learns colours within
minutes and relations only after hours; with this stage the denoiser finds them all in one state.
"""

import logging
from random import Random
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPTokenizer

from models.shapes.draw import (
    CANVASES,
    COLOURS,
    PLACES,
    RELATIONS,
    SHAPES,
    SIZES,
    Scene,
    prompt_of,
    sample_scene,
)
from models.shapes.tokenizer import MAX_TOKENS

log = logging.getLogger(__name__)

BATCH = 128
PEAK_RATE = 1e-3
ITEM = (SHAPES, COLOURS, SIZES)
QUESTIONS = (*ITEM, *ITEM, COLOURS, PLACES, tuple(RELATIONS))
"""First item, second item, background, place, relation; answer 0 means that there is none."""


def answers(scene: Scene) -> list[int]:
    """One class for each question."""
    found: list[str | None] = []
    for index in range(2):
        item = scene.items[index] if index < len(scene.items) else None
        found += [item.shape, item.colour, item.size] if item else [None, None, None]
    place = scene.place if len(scene.items) == 1 else None
    found += [scene.background, place, scene.relation]
    return [
        0 if name is None else 1 + known.index(name)
        for name, known in zip(found, QUESTIONS, strict=True)
    ]


def teach(text_encoder: Any, tokenizer: CLIPTokenizer, *, steps: int, seed: int) -> float:
    """Train in place; returns the share of attributes named right in the last batch."""
    rng = Random(f"comprehension {seed}")
    sizes = [1 + len(known) for known in QUESTIONS]
    head = torch.nn.Linear(text_encoder.config.hidden_size, sum(sizes))
    parameters = [*text_encoder.parameters(), *head.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=PEAK_RATE)
    right = 0.0
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = PEAK_RATE * min(
            1.0, (step + 1) / 50, 2 - 2 * step / steps
        )
        ids, classes = _batch(tokenizer, rng)
        logits = head(_after_the_end(text_encoder(ids)[0], ids, tokenizer)).split(sizes, dim=-1)
        columns = list(zip(logits, classes.unbind(1), strict=True))
        errors = [torch.nn.functional.cross_entropy(given, true) for given, true in columns]
        loss = torch.stack(errors).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        right = sum((g.argmax(-1) == t).float().mean().item() for g, t in columns) / len(columns)
        if (step + 1) % 100 == 0:
            log.info("text encoder step %d, attributes right %.4f", step + 1, right)
    return right


def _after_the_end(states: Tensor, ids: Tensor, tokenizer: CLIPTokenizer) -> Tensor:
    """The state of each row at a random position from its end token on."""
    first = (ids == tokenizer.eos_token_id).int().argmax(dim=1)
    reach = (torch.rand(len(ids)) * (MAX_TOKENS - first)).long()
    return states[torch.arange(len(ids)), first + reach]


def _batch(tokenizer: CLIPTokenizer, rng: Random) -> tuple[Tensor, Tensor]:
    scenes = [
        sample_scene(rng, items=1 + (rng.random() < 0.65), canvas=rng.choice(CANVASES))
        for _ in range(BATCH)
    ]
    padded = tokenizer(
        [prompt_of(scene, rng) for scene in scenes],
        padding="max_length",
        max_length=MAX_TOKENS,
        truncation=True,
        return_tensors="pt",
    )
    return padded.input_ids, torch.tensor([answers(scene) for scene in scenes])
