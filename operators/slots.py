"""The rows that are being denoised together: their recent latents and model outputs.

One ``Slots`` holds all rows of one latent shape that have a slot. Rows differ in sampler, step
count and position; one ``einsum`` over their tables advances them all. Knows nothing of prompts,
guidance or pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from operators.device import Device
from operators.sampler_table import Floats, SamplerTable


@dataclass(slots=True, kw_only=True, eq=False)
class DenoisingRow:
    """One latent on its way: ``position`` is the number of model calls that it has behind it.

    ``generator`` is on the CPU and is the row's own, so that company and device never change the
    noise. ``noise`` is a draw that no finished call has used yet.
    """

    table: SamplerTable
    generator: torch.Generator
    position: int = 0
    noise: torch.Tensor | None = None

    @property
    def finished(self) -> bool:
        return self.position >= self.table.calls


def start_row(table: SamplerTable, seed: int) -> DenoisingRow:
    """A row whose noise is what diffusers draws with a CPU generator of this seed."""
    return DenoisingRow(table=table, generator=torch.Generator("cpu").manual_seed(seed))


class Slots:
    """Rows of latent shape ``(c, h, w)`` and their history, float32, newest first.

    Invariant: ``rows[i]`` owns index i of both histories, [rows, window, c, h, w]; the window is
    the longest that any row here ever needed.
    """

    def __init__(self, shape: tuple[int, int, int], *, device: Device) -> None:
        self.shape = shape
        self.rows: list[DenoisingRow] = []
        self._device = device
        self._latents = torch.zeros(0, 1, *shape, device=device.where)
        self._outputs = torch.zeros(0, 1, *shape, device=device.where)

    def enter(self, row: DenoisingRow) -> None:
        """Draw the row's first latent and give it a slot with an empty history."""
        first = torch.randn((1, *self.shape), generator=row.generator) * row.table.init_noise_sigma
        self._widen(row.table.window)
        fresh = torch.zeros(1, *self._latents.shape[1:], device=self._device.where)
        self._outputs = torch.cat([self._outputs, fresh])
        fresh[:, 0] = self._device.stage(first.numpy())
        self._latents = torch.cat([self._latents, fresh])
        self.rows.append(row)

    def leave(self, rows: Sequence[DenoisingRow]) -> None:
        """Free the slots of these rows; rows without a slot are ignored."""
        gone = set(map(id, rows))
        keep = [i for i, row in enumerate(self.rows) if id(row) not in gone]
        if len(keep) == len(self.rows):
            return
        index = self._index(keep)
        self._latents = self._latents.index_select(0, index)
        self._outputs = self._outputs.index_select(0, index)
        self.rows = [self.rows[i] for i in keep]

    def model_inputs(self, places: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Scaled latents [b, c, h, w] and timesteps [b] of the rows at these places."""
        rows = [self.rows[place] for place in places]
        tables = [(row.table, row.position) for row in rows]
        values = [
            [table.input_scales[now] for table, now in tables],
            [table.timesteps[now] for table, now in tables],
        ]
        scales, timesteps = self._device.stage(np.array(values, dtype=np.float32))
        return self.newest(places) * scales[:, None, None, None], timesteps

    def next_latents(self, places: Sequence[int], outputs: torch.Tensor) -> torch.Tensor:
        """The latents [b, c, h, w] after this call; changes nothing that a second try would miss.

        ``outputs`` are the (guided) model outputs of all rows, [rows, c, h, w].
        """
        rows = [self.rows[place] for place in places]
        index = self._index(places)
        made = torch.cat([outputs[index, None], self._outputs[index, :-1]], dim=1)
        x_coefs = self._coefficients(rows, lambda table: table.x_coefs)
        m_coefs = self._coefficients(rows, lambda table: table.m_coefs)
        after = torch.einsum("bk,bkchw->bchw", x_coefs, self._latents[index])
        after += torch.einsum("bk,bkchw->bchw", m_coefs, made)
        for place, row in enumerate(rows):
            coefficient = float(row.table.noise_coefs[row.position])
            if self._draw(row) and coefficient and row.noise is not None:
                after[place] += coefficient * self._device.stage(row.noise.numpy())
        return after

    def commit(self, latents: torch.Tensor, outputs: torch.Tensor) -> None:
        """Take one call's results, both [rows, c, h, w], into the history of every row."""
        for history, newest in ((self._latents, latents), (self._outputs, outputs)):
            for age in range(history.shape[1] - 1, 0, -1):
                history[:, age] = history[:, age - 1]
            history[:, 0] = newest
        for row in self.rows:
            row.position += 1
            row.noise = None

    def newest(self, places: Sequence[int]) -> torch.Tensor:
        """The current latents [b, c, h, w]."""
        return self._latents[self._index(places), 0]

    def _draw(self, row: DenoisingRow) -> bool:
        if not row.table.draws[row.position]:
            return False
        if row.noise is None:
            row.noise = torch.randn((1, *self.shape), generator=row.generator)[0]
        return True

    def _widen(self, window: int) -> None:
        missing = window - self._latents.shape[1]
        if missing > 0:
            size = (len(self.rows), missing, *self.shape)
            padding = torch.zeros(size, device=self._device.where)
            self._latents = torch.cat([self._latents, padding], dim=1)
            self._outputs = torch.cat([self._outputs, padding], dim=1)

    def _coefficients(
        self, rows: Sequence[DenoisingRow], of_table: Callable[[SamplerTable], Floats]
    ) -> torch.Tensor:
        window = self._latents.shape[1]
        coefficients = np.zeros((len(rows), window), dtype=np.float32)
        for place, row in enumerate(rows):
            coefficients[place, : row.table.window] = of_table(row.table)[row.position]
        return self._device.stage(coefficients)

    def _index(self, places: Sequence[int]) -> torch.Tensor:
        return self._device.stage(np.array(places, dtype=np.int64))
