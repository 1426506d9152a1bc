"""A denoiser compiled by torch for a few batch sizes, in which nothing is ever compiled twice.

All compilation happens in ``compile_family``, before the first row. What was not compiled then, a
small rest of a batch or another image size, runs as it always did. Knows nothing of slots or rows.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch

from operators.compile_cache import use_compile_cache
from operators.families.family import GUIDANCE, Family, Tensors
from operators.model_options import denoiser_of

_log = logging.getLogger(__name__)
_MOST_PADDING = 1.34
"""A batch is filled up to at most so many times its rows: what compiled code gains at least."""
_MOST_GRAPHS = 64
"""Torch gives up on code that it had to compile more often; its own 8 are few for many blocks."""
_MESSAGE_CHARACTERS = 300
_CALLS_TO_JUDGE = 200
"""So many calls tell whether compiling was of use."""
Backend = str | Callable[..., Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Compilation:
    """What became of ``engine.compile``: the family to use, how its denoiser is compiled (off,
    regional or full), and the seconds that it took."""

    family: Family
    how: str
    seconds: float


class CompiledFamily:
    """A family whose ``predict`` fills a batch up to the next compiled size.

    Says once if most calls had to run uncompiled.

    Args:
        sizes: the batch sizes that were compiled.
        shape: the latent shape [c, h, w] that they were compiled for.
    """

    def __init__(self, family: Family, sizes: Sequence[int], shape: Sequence[int]) -> None:
        self._family = family
        self._sizes = sorted(sizes)
        self._shape = tuple(shape)
        self._calls = self._uncompiled = 0
        self._told = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._family, name)

    def predict(
        self,
        latents: torch.Tensor,
        timesteps: torch.Tensor,
        conditioning: Tensors,
        size: tuple[int, int],
    ) -> torch.Tensor:
        """See ``operators.families.family.Family``."""
        rows = len(latents)
        wanted = self._size_for(rows) if latents.shape[1:] == self._shape else None
        self._count(compiled=wanted is not None)
        if wanted is None:
            with torch.compiler.set_stance("force_eager"):
                return self._family.predict(latents, timesteps, conditioning, size)
        # whatever should not fit the compiled code after all must not stop the batch for a minute
        with torch.compiler.set_stance("eager_on_recompile"):
            return self._family.predict(
                _filled(latents, wanted),
                _filled(timesteps, wanted),
                {name: _filled(tensor, wanted) for name, tensor in conditioning.items()},
                size,
            )[:rows]

    def _count(self, *, compiled: bool) -> None:
        self._calls += 1
        self._uncompiled += not compiled
        most = 2 * self._uncompiled > self._calls
        if most and self._calls >= _CALLS_TO_JUDGE and not self._told:
            self._told = True
            _log.warning(
                "%d of %d calls of the denoiser ran uncompiled: compiled are batches of %s at the "
                "model's own image size; engine.compile=off saves the time that compiling takes",
                self._uncompiled,
                self._calls,
                " and ".join(str(size) for size in self._sizes),
                extra={"event": "mostly_uncompiled"},
            )

    def _size_for(self, rows: int) -> int | None:
        size = next((size for size in self._sizes if size >= rows), None)
        return size if size is not None and size <= rows * _MOST_PADDING else None


def batch_sizes(max_batch: int, *, passes: int) -> tuple[int, ...]:
    """The sizes worth compiling: full batches, where a row has 2 ``passes`` those with one too."""
    return (passes * max_batch, max_batch) if passes > 1 else (max_batch,)


def compile_family(
    family: Family,
    how: str,
    *,
    sizes: Sequence[int],
    pixels: tuple[int, int],
    backend: Backend = "inductor",
) -> Compilation:
    """Compile the denoiser for batches of ``sizes`` at images of ``pixels`` (height, width).

    A machine that cannot compile says so once and goes on without. ``regional`` becomes ``full``
    where diffusers names no repeated blocks of the denoiser.
    """
    began_s = time.monotonic()
    if how == "off":
        return Compilation(family=family, how="off", seconds=0.0)
    use_compile_cache()
    denoiser = denoiser_of(family)
    how = how if getattr(denoiser, "_repeated_blocks", None) else "full"
    try:
        _mark(denoiser, how, backend)
        shape = _warm_up(family, sizes, pixels)
    except Exception as error:  # noqa: BLE001 - compilers fail in many ways, eager code is there
        _unmark(denoiser)
        _log.warning(
            "the denoiser cannot be compiled here and runs uncompiled: %s: %s",
            type(error).__name__,
            _in_one_line(error),
            extra={"event": "compile_failed"},
        )
        return Compilation(family=family, how="off", seconds=time.monotonic() - began_s)
    compiled = cast(Family, CompiledFamily(family, sizes, shape))
    return Compilation(family=compiled, how=how, seconds=time.monotonic() - began_s)


def _mark(denoiser: Any, how: str, backend: Backend) -> None:
    config = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, _MOST_GRAPHS)
    compile_it = denoiser.compile_repeated_blocks if how == "regional" else denoiser.compile
    compile_it(backend=backend, dynamic=False)


def _unmark(denoiser: Any) -> None:
    for module in denoiser.modules():
        module._compiled_call_impl = None


@torch.inference_mode()
def _warm_up(family: Family, sizes: Sequence[int], pixels: tuple[int, int]) -> tuple[int, int, int]:
    """Run a batch of each size as the engine will, so that each is compiled; the latent shape."""
    shape = family.latent_shape(*pixels)
    told = dict(family.embed([""]))
    if not family.two_pass_guidance:
        told[GUIDANCE] = torch.ones(1, device=family.device)
    for size in sizes:
        family.predict(
            torch.zeros(size, *shape, device=family.device),
            torch.full((size,), 500.0, device=family.device),
            {name: _filled(tensor, size) for name, tensor in told.items()},
            pixels,
        )
    return shape


def _filled(tensor: torch.Tensor, rows: int) -> torch.Tensor:
    """The tensor [b, ...] with its last row repeated until there are ``rows``."""
    missing = rows - len(tensor)
    return (
        torch.cat([tensor, tensor[-1:].expand(missing, *tensor.shape[1:])]) if missing else tensor
    )


def _in_one_line(error: Exception) -> str:
    """Compilers explain themselves at length; the reason stands at the beginning."""
    return " ".join(str(error).split())[:_MESSAGE_CHARACTERS]
