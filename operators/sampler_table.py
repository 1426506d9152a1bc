"""A sampler is a table: diffusers' schedulers compiled to coefficients.

Every common scheduler is linear: the next latent is a linear combination of the last few latents,
the last few model outputs and fresh noise. ``compile_sampler`` reads those coefficients off the
unmodified diffusers scheduler by feeding it basis vectors, so that rows with different samplers
and step counts can advance in one ``einsum``. Knows nothing of images, slots or devices.
"""

from __future__ import annotations

import sys
import threading
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from conf.errors import RowRejected
from operators.nonlinear_options import nonlinear_option
from operators.samplers import (
    config_digest,
    make_scheduler,
    misfit,
    scheduler_name,
    set_timesteps,
    step_arguments,
)

Floats = npt.NDArray[np.float64]
MAX_WINDOW = 6
_EXACT = 1e-5
"""Relative size up to which an eliminated coefficient is zero; diffusers works in float32."""
_SAME = 1e-3
"""Relative error up to which a replay counts as equal; a clipped sample is off by far more."""
_CACHED_TABLES = 512


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SamplerTable:
    """The coefficients of one sampler at one step count.

    With x the latents, m the model outputs and z a standard normal draw, call i computes
    ``x[i+1] = sum_k x_coefs[i,k] x[i-k] + sum_k m_coefs[i,k] m[i-k] + noise_coefs[i] z[i]`` and the
    model sees ``input_scales[i] * x[i]`` at ``timesteps[i]``. ``x[0]`` is a draw times
    ``init_noise_sigma``. Where ``draws[i]`` is set, z must be drawn even if its coefficient is 0,
    because later draws come from the same generator.

    Shapes: ``timesteps``, ``input_scales``, ``noise_coefs``, ``draws`` [calls]; ``x_coefs``,
    ``m_coefs`` [calls, window]. Coefficients of latents before the first are 0.
    """

    timesteps: Floats
    input_scales: Floats
    init_noise_sigma: float
    x_coefs: Floats
    m_coefs: Floats
    noise_coefs: Floats
    draws: npt.NDArray[np.bool_]

    @property
    def calls(self) -> int:
        """Model calls of the whole run; some samplers need more than one a step."""
        return len(self.timesteps)

    @property
    def window(self) -> int:
        """How many latents and model outputs must be kept."""
        return int(self.x_coefs.shape[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    """What is compiled; its arguments are those of ``compile_sampler``."""

    scheduler_config: Mapping[str, Any]
    sampler: str
    steps: int
    mu: float | None
    sigmas: tuple[float, ...] | None

    @property
    def key(self) -> tuple[object, ...]:
        digest = config_digest(self.scheduler_config)
        return (digest, self.sampler, self.steps, self.mu, self.sigmas)

    @property
    def named(self) -> str:
        return f"sampler {self.sampler} ({scheduler_name(self.scheduler_config, self.sampler)})"

    def scheduler(self) -> Any:
        """A fresh scheduler with its timesteps set."""
        scheduler = make_scheduler(self.scheduler_config, self.sampler)
        set_timesteps(scheduler, self.steps, mu=self.mu, sigmas=self.sigmas)
        return scheduler


_tables: OrderedDict[tuple[object, ...], SamplerTable] = OrderedDict()
_lock = threading.Lock()


def compile_sampler(
    scheduler_config: Mapping[str, Any],
    sampler: str,
    steps: int,
    *,
    mu: float | None = None,
    sigmas: Sequence[float] | None = None,
) -> SamplerTable:
    """The table of a sampler for a model's scheduler configuration; remembered for the next call.

    ``mu`` and ``sigmas`` are what the pipeline of a flow model passes to ``set_timesteps``; where
    they depend on the image's size, so does the table (``flow_shift`` computes them).

    Raises:
        RowRejected: stage ``denoise``; ``sampler_not_linear`` names the option that forbids a
            table, ``sampler_unfit`` says for which models the sampler is, ``sampler_failed`` names
            a step count or configuration that diffusers refuses.
        ValueError: the model shifts dynamically and no ``mu`` was given; a mistake in its family.
    """
    if mu is None and scheduler_config.get("use_dynamic_shifting"):
        raise ValueError(
            "this model shifts its noise levels with the image's size (use_dynamic_shifting=True), "
            "but no mu was given; pass mu=dynamic_mu(scheduler_config, image_tokens)"
        )
    task = _Task(
        scheduler_config=scheduler_config,
        sampler=sampler,
        steps=steps,
        mu=mu,
        sigmas=None if sigmas is None else tuple(sigmas),
    )
    key = task.key
    with _lock:
        if key in _tables:
            _tables.move_to_end(key)
            return _tables[key]
        table = _compile(task)
        _tables[key] = table
        if len(_tables) > _CACHED_TABLES:
            _tables.popitem(last=False)
        return table


def _compile(task: _Task) -> SamplerTable:
    why = misfit(task.scheduler_config, task.sampler)
    if why is not None:
        message = f"{task.named} cannot follow this model: {why}. Ask for another sampler"
        raise RowRejected(stage="denoise", reason="sampler_unfit", message=message)
    option = nonlinear_option(task.scheduler_config, task.sampler)
    if option is not None:
        why = (
            f"its option {option} is not linear. Turn it off in the model's scheduler "
            "configuration, or ask for another sampler"
        )
        raise _not_linear(task, why)
    try:
        # diffusers announces future changes of options that a model's own configuration sets
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _read_table(task)
    except RowRejected:
        raise
    except Exception as error:
        raise RowRejected(
            stage="denoise",
            reason="sampler_failed",
            message=f"{task.named} cannot run {task.steps} steps with this model: "
            f"{type(error).__name__}: {error}. Ask for other steps or another sampler",
        ) from error


def _not_linear(task: _Task, why: str) -> RowRejected:
    return RowRejected(
        stage="denoise",
        reason="sampler_not_linear",
        message=f"{task.named} cannot be compiled for this model: {why}",
    )


def _read_table(task: _Task) -> SamplerTable:
    scheduler = task.scheduler()
    timesteps = list(scheduler.timesteps)
    scales = np.ones(len(timesteps))
    draws = np.zeros(len(timesteps), dtype=np.bool_)
    equations = _Equations(calls=len(timesteps))
    arguments = step_arguments(scheduler)
    noise = _BasisNoise(equations)
    with _noise_from(scheduler, noise):
        for i, t in enumerate(timesteps):
            scales[i] = float(_scale(scheduler, torch.ones(1, dtype=torch.float64), t))
            noise.call, noise.draws = i, 0
            latent, output = equations.basis(i, 0), equations.basis(i, 1)
            after = scheduler.step(output, t, latent, **arguments, return_dict=False)[0]
            if noise.draws > 1:
                raise _not_linear(
                    task, f"it draws noise {noise.draws} times in a step. Ask for another sampler"
                )
            draws[i] = noise.draws == 1
            equations.add(i, after.double().numpy().reshape(-1, 3))
    solved = equations.solve()
    if solved is None:
        raise _not_linear(
            task, f"it needs a history of more than {MAX_WINDOW} latents. Ask for another sampler"
        )
    table = SamplerTable(
        timesteps=np.array([float(t) for t in timesteps]),
        input_scales=scales,
        init_noise_sigma=float(getattr(scheduler, "init_noise_sigma", 1.0)),
        x_coefs=solved[..., 0],
        m_coefs=solved[..., 1],
        noise_coefs=equations.noise,
        draws=draws,
    )
    _check_by_replay(table, task)
    for array in (table.timesteps, scales, table.x_coefs, table.m_coefs, equations.noise, draws):
        array.setflags(write=False)
    return table


def _scale(scheduler: Any, latent: torch.Tensor, timestep: Any) -> torch.Tensor:
    """What the model sees of a latent; schedulers without the method scale nothing."""
    if not hasattr(scheduler, "scale_model_input"):
        return latent
    return scheduler.scale_model_input(latent, timestep)  # type: ignore[no-any-return]


class _Equations:
    """What each call computes, read off its response to basis vectors.

    The basis has three vectors a call: its latent, its model output, its noise. Every call gets a
    *fresh* latent, so that its response shows its whole direct history; a scheduler that keeps a
    latent of its own (UniPC's corrector) shows an endless tail, which the equation of the call
    before removes.
    """

    def __init__(self, *, calls: int) -> None:
        self._calls = calls
        self._before: Floats | None = None
        self._by_window: list[Floats | None] = [
            np.zeros((calls, window, 2)) for window in range(1, MAX_WINDOW + 1)
        ]
        self.noise: Floats = np.zeros(calls)

    def basis(self, call: int, kind: int) -> torch.Tensor:
        """The unit vector of a call's latent (kind 0), model output (1) or noise (2)."""
        vector = torch.zeros(1, 1, 1, self._calls * 3, dtype=torch.float64)
        vector[..., call * 3 + kind] = 1.0
        return vector

    def add(self, call: int, response: Floats) -> None:
        """Take the response [calls, 3] of one call into every window that can express it."""
        if not np.isfinite(response).all():
            raise ArithmeticError(f"the scheduler's coefficients are not finite at call {call}")
        self.noise[call] = response[call, 2]
        for place, equations in enumerate(self._by_window):
            if equations is None:
                continue
            window = place + 1
            row = self._within(call, response, window)
            if row is None:
                self._by_window[place] = None
                continue
            recent = row[max(0, call + 1 - window) : call + 1, :2][::-1]
            equations[call, : len(recent)] = recent
        self._before = response

    def solve(self) -> Floats | None:
        """Coefficients [calls, window, 2] of the shortest window, or None."""
        return next((found for found in self._by_window if found is not None), None)

    def _within(self, call: int, response: Floats, window: int) -> Floats | None:
        """The response rewritten with no part older than ``window`` calls, or None."""
        tail = _tail(response, call, window)
        if not tail.any():
            return response
        if self._before is None:
            return None
        tail_before = _tail(self._before, call, window)
        norm = float(np.vdot(tail_before, tail_before))
        if norm == 0.0:
            return None
        factor = float(np.vdot(tail_before, tail)) / norm
        if np.abs(tail - factor * tail_before).max() > _EXACT * np.abs(tail).max():
            return None
        row = response - factor * self._before
        row[call, 0] += factor
        return row


def _tail(response: Floats, call: int, window: int) -> Floats:
    """The part of a response that an equation of ``window`` calls cannot hold."""
    tail = response.copy()
    tail[max(0, call + 1 - window) : call + 1, :2] = 0.0
    tail[call, 2] = 0.0
    return tail


class _BasisNoise:
    """Stands in for ``randn_tensor``: every draw is the call's noise basis vector."""

    def __init__(self, equations: _Equations) -> None:
        self._equations = equations
        self.call = 0
        self.draws = 0

    def __call__(self, shape: Any, **_: Any) -> torch.Tensor:
        self.draws += 1
        return self._equations.basis(self.call, 2).reshape(tuple(shape))


class _ReplayNoise:
    """Stands in for ``randn_tensor``: draws that the replay knows."""

    def __init__(self, noise: torch.Tensor) -> None:
        self._noise = noise
        self.call = 0

    def __call__(self, shape: Any, **_: Any) -> torch.Tensor:
        return self._noise[self.call].reshape(tuple(shape))


@contextmanager
def _noise_from(scheduler: Any, source: Any) -> Iterator[None]:
    """Patch ``randn_tensor`` in the scheduler's own module; only under the module's lock."""
    module = sys.modules[type(scheduler).__module__]
    original = getattr(module, "randn_tensor", None)
    if original is None:
        yield
        return
    module.randn_tensor = source  # type: ignore[attr-defined]
    try:
        yield
    finally:
        module.randn_tensor = original  # type: ignore[attr-defined]


def _check_by_replay(table: SamplerTable, task: _Task) -> None:
    """Compare the table with a fresh scheduler on random vectors, along a whole trajectory."""
    random = torch.Generator("cpu").manual_seed(task.steps)
    width = 16
    outputs = torch.randn(table.calls, width, generator=random, dtype=torch.float64)
    noise = torch.randn(table.calls, width, generator=random, dtype=torch.float64)
    start = torch.randn(width, generator=random, dtype=torch.float64) * table.init_noise_sigma
    expected = _run_scheduler(task.scheduler(), start, outputs, noise)
    history = np.zeros((table.calls + table.window, width))
    made = np.zeros_like(history)
    history[table.window - 1] = start.numpy()
    for i in range(table.calls):
        now = i + table.window - 1
        made[now] = outputs[i].numpy()
        after = table.noise_coefs[i] * noise[i].numpy()
        for k in range(min(table.window, i + 1)):
            after += table.x_coefs[i, k] * history[now - k] + table.m_coefs[i, k] * made[now - k]
        history[now + 1] = after
    reached = history[table.window :][: table.calls]
    scale = max(1.0, float(np.abs(expected).max()))
    worst = float(np.abs(reached - expected).max()) / scale
    if not worst <= _SAME:
        raise _not_linear(
            task,
            f"a replay of its table is off by {worst:.1e} of the scale. Ask for another sampler",
        )


def _run_scheduler(
    scheduler: Any, latent: torch.Tensor, outputs: torch.Tensor, noise: torch.Tensor
) -> Floats:
    """The latent after each call, [calls, width], as the scheduler itself computes it."""
    arguments = step_arguments(scheduler)
    source = _ReplayNoise(noise)
    reached = []
    latent = latent.reshape(1, 1, 1, -1)
    with _noise_from(scheduler, source):
        for i, t in enumerate(scheduler.timesteps):
            source.call = i
            _scale(scheduler, latent, t)
            output = outputs[i].reshape(1, 1, 1, -1)
            latent = scheduler.step(output, t, latent, **arguments, return_dict=False)[0]
            reached.append(latent.double().numpy().reshape(-1))
    return np.array(reached)
