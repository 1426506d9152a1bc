"""One call of the denoiser for rows that differ in prompt and guidance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from operators.device import Device
from operators.families.family import GUIDANCE, Conditioning, Family, Text, stack
from operators.slots import DenoisingRow, Slots
from operators.splitting import BatchCaps, run_split
from operators.work import Work


@dataclass(slots=True, kw_only=True, eq=False)
class DenoisingWork(Work):
    """A request that is denoised: its row from its table on, its texts from its slot on."""

    row: DenoisingRow | None = None
    prompt: Conditioning | None = None
    negative: Conditioning | None = None

    @property
    def texts(self) -> list[Text]:
        """The prompt, and with a guidance pass the negative prompt; None where it is empty."""
        texts: list[Text] = [self.request.prompt]
        return [*texts, self.request.negative_prompt or None] if self.guided else texts


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pass:
    """One row of the forward batch: the row at ``place``, seen with one text."""

    place: int
    conditioning: Conditioning


class Predictor:
    """Runs the denoiser in as few batches as memory allows."""

    def __init__(self, family: Family, device: Device, *, caps: BatchCaps) -> None:
        self._family = family
        self._device = device
        self._caps = caps

    def predict(
        self, slots: Slots, works: Sequence[DenoisingWork]
    ) -> tuple[torch.Tensor, dict[int, Exception]]:
        """Guided model outputs [rows, c, h, w] of all rows of ``slots``, which ``works`` are in
        this order; zeros where a row failed, and the failures by place."""
        shape = works[0].shape
        passes = [_Pass(place=i, conditioning=_given(w.prompt)) for i, w in enumerate(works)]
        guided = [place for place, work in enumerate(works) if work.guided]
        passes += [_Pass(place=i, conditioning=_given(works[i].negative)) for i in guided]

        def run(part: Sequence[_Pass]) -> list[torch.Tensor]:
            latents, timesteps = slots.model_inputs([one.place for one in part])
            conditioning = stack([one.conditioning for one in part])
            if not self._family.two_pass_guidance:
                told = [works[one.place].request.guidance_scale for one in part]
                conditioning[GUIDANCE] = self._device.stage(np.array(told, dtype=np.float32))
            return list(self._family.predict(latents, timesteps, conditioning, shape))

        answers = run_split(passes, run, caps=self._caps, key=("denoise", shape))
        failed: dict[int, Exception] = {}
        for one, answer in zip(passes, answers, strict=True):
            if isinstance(answer, Exception):
                failed.setdefault(one.place, answer)
        empty = torch.zeros(slots.shape, device=self._device.where)
        made = torch.stack([empty if isinstance(one, Exception) else one for one in answers])
        outputs, unguided = made[: len(works)], made[len(works) :]
        if guided:
            scales = [works[place].request.guidance_scale for place in guided]
            scale = self._device.stage(np.array(scales, dtype=np.float32))[:, None, None, None]
            index = self._device.stage(np.array(guided, dtype=np.int64))
            outputs[index] = unguided + scale * (outputs[index] - unguided)
        for place in failed:
            outputs[place] = 0.0
        return outputs, failed


def _given(conditioning: Conditioning | None) -> Conditioning:
    assert conditioning is not None
    return conditioning
