"""What the engine asks of a family of models.

Knows nothing of any model: each family is a file beside this one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch.nn.utils.rnn import pad_sequence

from operators.device import to_device
from operators.flow_shift import NoiseLevels

Text = str | None
"""A prompt; None is the negative prompt of a row that gives none."""
Tensors = Mapping[str, torch.Tensor]
"""What a family's denoiser takes beside latents and timesteps, by names of its own."""
TEXT_MASK = "text_mask"
"""In ``Tensors``, where texts of a batch differ in length: which tokens a row has, [b, tokens]."""
GUIDANCE = "guidance"
"""In ``Tensors``, where guidance is no second pass: the guidance scale of each row, [b]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditioning:
    """A text as the denoiser takes it.

    Invariant: the tensors of any two texts have equal names and shapes, so that they stack; only
    texts that are read in several pieces are longer in their first axis. They have no batch axis,
    are on the model's device and share no memory with other texts.
    """

    tensors: Tensors
    truncated_tokens: int

    @property
    def bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors.values())


def stack(conditionings: Sequence[Conditioning]) -> dict[str, torch.Tensor]:
    """The tensors of several texts with a batch axis in front.

    Where lengths differ, the shorter ones end in zeros, and ``TEXT_MASK`` tells them apart.
    """
    stacked: dict[str, torch.Tensor] = {}
    for name in conditionings[0].tensors:
        tensors = [one.tensors[name] for one in conditionings]
        lengths = [len(tensor) for tensor in tensors]
        if min(lengths) == max(lengths):
            stacked[name] = torch.stack(tensors)
            continue
        stacked[name] = pad_sequence(tensors, batch_first=True)
        there = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
        stacked[TEXT_MASK] = to_device(there, tensors[0].device)
    return stacked


class Family(Protocol):
    """A loaded model on one device; does what its diffusers pipeline does around the scheduler."""

    @property
    def device(self) -> torch.device: ...

    @property
    def scheduler_config(self) -> Mapping[str, Any]:
        """The configuration that the model was trained with, as the pipeline corrects it."""
        ...

    @property
    def two_pass_guidance(self) -> bool:
        """Whether guidance is a second pass, with the negative prompt.

        Where it is not, a row has one pass whatever its guidance scale, negative prompts are not
        used, and ``predict`` is told the scales as ``GUIDANCE``.
        """
        ...

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """Channels, height and width of the latent of an image of ``height`` x ``width`` pixels.

        Raises:
            RowRejected: the model makes no image of this size.
        """
        ...

    def noise_levels(self, height: int, width: int, steps: int) -> NoiseLevels:
        """What the pipeline tells its scheduler for an image of ``height`` x ``width`` pixels."""
        ...

    def count_truncated(self, text: Text) -> int:
        """How many tokens of ``text`` no text encoder of the model can see."""
        ...

    def pieces(self, text: Text) -> int:
        """In how many pieces the text encoders read ``text``; 1 where they read no long texts."""
        ...

    def embed(self, texts: Sequence[Text]) -> Tensors:
        """What the denoiser takes for each text, tensors [texts, ...]; all of equal pieces."""
        ...

    def predict(
        self,
        latents: torch.Tensor,
        timesteps: torch.Tensor,
        conditioning: Tensors,
        size: tuple[int, int],
    ) -> torch.Tensor:
        """The denoiser's output [b, c, h, w], float32.

        Latents [b, c, h, w] of images of ``size`` (height, width in pixels) at timesteps [b], with
        one text a row: tensors [b, ...] as ``embed`` makes them, ``TEXT_MASK`` where texts differ
        in length, and ``GUIDANCE`` where guidance is no second pass.
        """
        ...

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Pixels [b, 3, H, W] from -1 to 1, for finished latents [b, c, h, w]."""
        ...
