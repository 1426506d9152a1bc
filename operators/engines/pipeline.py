"""The fallback engine: any diffusers text-to-image pipeline, called as its author meant it.

Requests that a pipeline can make in one call (same sampler, steps, guidance and size) share one;
the others wait. Slower than the stepwise engine on mixed rows, but it needs no adapter and no
linear sampler, and it is what the stepwise engine is compared with.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from conf.errors import NoImages, RowRejected
from conf.schema import EngineConfig, ModelConfig
from operators.batcher import TickPlan
from operators.device import device_for
from operators.device_time import DeviceMeter
from operators.engine import EngineInfo, EngineStats, ImageFailure, ImageResult, Pixels
from operators.families.loading import load_pipeline, silent_diffusers
from operators.fill import FillCount
from operators.groups import Groups
from operators.guidance import ONE_PASS_PIPELINES
from operators.model_files import ModelFiles, read_index
from operators.model_options import apply_options
from operators.model_source import find_model
from operators.offload import loads_on, offload_pipeline
from operators.pipeline_call import PipelineCall, pipeline_call
from operators.precision import dtype_of, name_of
from operators.request import Request
from operators.row_errors import nan_image, row_error
from operators.safe_vae import decode_exactly
from operators.sampler_names import OWN_SAMPLER
from operators.samplers import make_scheduler, misfit
from operators.splitting import BatchCaps, run_split
from operators.token_counts import truncation_counter
from operators.work import Work

Outcome = ImageResult | ImageFailure


def load(engine: EngineConfig, model: ModelConfig) -> PipelineEngine:
    """Load the model onto the GPU if there is one, else the CPU.

    Raises:
        ModelUnusable: the model is absent, incomplete, or does not make images from text alone.
        ConfigError: an option of ``engine`` is not for this model or machine.
    """
    files = find_model(model)
    call = pipeline_call(files)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = dtype_of(engine.precision, device)
    pipeline = load_pipeline(
        files,
        dtype=dtype,
        device=loads_on(engine.offload, device),
        modules=(),
        options=_without_unused(files),
    )
    pipeline.set_progress_bar_config(disable=True)
    apply_options(pipeline, engine)
    decode_exactly(pipeline)
    offload_pipeline(pipeline, engine.offload, device=device)
    info = EngineInfo(
        name="pipeline",
        model=model.name,
        model_revision=files.revision,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        precision=name_of(dtype),
        compile="off",
        compile_seconds=0.0,
        max_batch=engine.max_batch or (16 if device.type == "cuda" else 8),
        simulated=False,
    )
    return PipelineEngine(PipelineModel(pipeline, call, device=device), info)


def _without_unused(files: ModelFiles) -> dict[str, Any]:
    """Parts that the index names and nobody needs to make an image."""
    index = read_index(files.layout)
    named = [name for name, entry in index.items() if isinstance(entry, list)]
    options: dict[str, Any] = {name: None for name in named if name not in files.components}
    if "requires_safety_checker" in index:
        options["requires_safety_checker"] = False
    return options


class PipelineModel:
    """A loaded pipeline that makes a group of images at once."""

    def __init__(self, pipeline: Any, call: PipelineCall, *, device: torch.device) -> None:
        self.call = call
        self.device = device
        self._pipeline = pipeline
        self._own_scheduler: Any = getattr(pipeline, "scheduler", None)
        self.count_truncated = truncation_counter(pipeline, call.max_tokens)

    def check(self, request: Request) -> None:
        """Check that the pipeline can do what a row asks.

        Raises:
            RowRejected: what it cannot do.
        """
        self.call.check_row(request)
        if request.sampler == OWN_SAMPLER:
            return
        why = misfit(dict(self._own_scheduler.config), request.sampler)
        if why is not None:
            message = (
                f"sampler {request.sampler} cannot follow this model: {why}. Ask for another "
                f"sampler, or for {OWN_SAMPLER}, the model's own"
            )
            raise RowRejected(stage="denoise", reason="sampler_unfit", message=message)

    def make(self, requests: Sequence[Request]) -> list[Pixels | None]:
        """The images of requests of one group; None where values are no numbers.

        Raises:
            NoImages: the pipeline makes something else, whatever the rows.
        """
        with silent_diffusers():
            given = self.call.arguments(requests)
            if self._own_scheduler is not None:
                scheduler = self._scheduler(requests[0].sampler)
                _draw_from(scheduler, given["generator"])
                self._pipeline.scheduler = scheduler
            answer = self._pipeline(**given)
        made = getattr(answer, "images", None)
        if made is None:
            raise NoImages(
                f"the {self.call.pipeline_class} of this model answers with a "
                f"{type(answer).__name__} that holds no images; expected a pipeline that makes "
                "images from text. Set model.path to another model"
            )
        if len(made) != len(requests):
            raise ValueError(f"the pipeline made {len(made)} images of {len(requests)} prompts")
        return [_to_pixels(np.asarray(image)) for image in made]

    def _scheduler(self, sampler: str) -> Any:
        """A fresh scheduler: some keep the last image's noise levels."""
        if sampler == OWN_SAMPLER:
            return type(self._own_scheduler).from_config(self._own_scheduler.config)
        return make_scheduler(dict(self._own_scheduler.config), sampler)


class PipelineEngine:
    """See ``operators.engine.Engine``. A tick is a whole call: what enters it returns from it.

    So no request is ever inside with a tick behind it, and ``overdue`` names none.
    """

    def __init__(self, model: PipelineModel, info: EngineInfo) -> None:
        self._model = model
        self._info = info
        self._groups: Groups[Work] = Groups(max_batch=info.max_batch)
        self._caps = BatchCaps()
        self._other_sizes: dict[tuple[int, int], tuple[int, ...]] = {}
        self._meter = DeviceMeter(device_for(model.device).clock)
        self._fill = FillCount()
        self._admitted = 0

    @property
    def info(self) -> EngineInfo:
        return self._info

    @property
    def stats(self) -> EngineStats:
        return EngineStats(
            ticks=self._fill.ticks,
            occupied=self._fill.occupied,
            offered=self._fill.offered,
            other_shapes=self._fill.other_shapes,
            starved=self._fill.starved,
            busy_ns=self._meter.busy_ns,
            active=0,
            waiting=len(self._groups),
        )

    @property
    def room(self) -> int:
        return self._groups.room

    @property
    def busy(self) -> bool:
        return len(self._groups) > 0

    def admit(self, requests: Sequence[Request]) -> None:
        for request in requests:
            work = Work(
                number=self._admitted,
                request=request,
                two_pass_guidance=self._model.call.pipeline_class not in ONE_PASS_PIPELINES,
            )
            self._groups.add(_group(request), work)
            self._admitted += 1

    def overdue(self, limit_s: float) -> list[Request]:
        return []

    def discard(self, unwanted: Callable[[Request], bool]) -> int:
        return self._groups.remove(lambda work: unwanted(work.request))

    @torch.inference_mode()
    def tick(self, *, more_to_come: bool = False) -> list[Outcome]:
        self._meter.start()
        works = self._groups.take()
        if not works:
            return []
        for work in works:
            work.start()
            work.took_part(rows=len(works))
        self._fill.count(self._plan(works), rows=len(works), more_to_come=more_to_come)
        answers = self._answers(works)
        self._meter.lap([(work, 1) for work in works])
        self._meter.settle()
        return [self._outcome(work, answer) for work, answer in zip(works, answers, strict=True)]

    def finish(self) -> list[Outcome]:
        return []

    def _answers(self, works: Sequence[Work]) -> list[Pixels | Exception | None]:
        """The image of each request, or why there is none."""
        answers: dict[int, Pixels | Exception | None] = {}
        for work in works:
            try:
                self._model.check(work.request)
                self._check_size(work)
            except RowRejected as error:
                answers[work.number] = error
        sound = [work for work in works if work.number not in answers]
        made = run_split(
            sound,
            lambda part: self._model.make([work.request for work in part]),
            caps=self._caps,
            key=(works[0].shape, works[0].guided),
        )
        answers |= {work.number: answer for work, answer in zip(sound, made, strict=True)}
        return [answers[work.number] for work in works]

    def _outcome(self, work: Work, answer: Pixels | Exception | None) -> Outcome:
        if isinstance(answer, RowRejected):
            return work.failure(answer)
        if isinstance(answer, Exception):
            return work.failure(row_error("denoise", answer))
        if answer is None:
            return work.failure(nan_image())
        if answer.shape[:2] != work.shape:
            self._other_sizes[work.shape] = answer.shape[:2]
            return work.failure(_wrong_size(work.shape, answer.shape[:2]))
        truncated = self._model.count_truncated(work.request.prompt)
        return work.result(answer, truncated_tokens=truncated)

    def _check_size(self, work: Work) -> None:
        """Refuse a size for which the pipeline made another one before."""
        made = self._other_sizes.get(work.shape)
        if made is not None:
            raise _wrong_size(work.shape, made)

    def _plan(self, works: Sequence[Work]) -> TickPlan:
        """This call as a tick: what stays waiting is of another group."""
        numbers = tuple(work.number for work in works)
        return TickPlan(
            shape=works[0].shape,
            entering=numbers,
            rows=numbers,
            slots=self._info.max_batch,
            others=self.busy,
        )


def _draw_from(scheduler: Any, generators: Sequence[torch.Generator]) -> None:
    """Let it draw each row's noise from that row's seed, also where the pipeline forgets to."""
    if "generator" in inspect.signature(scheduler.step).parameters:
        scheduler.step = partial(scheduler.step, generator=generators)


def _group(request: Request) -> Hashable:
    """What requests of one call share. No negative prompt is another thing than an empty one."""
    return (
        request.sampler,
        request.steps,
        request.guidance_scale,
        request.height,
        request.width,
        bool(request.negative_prompt),
    )


def _to_pixels(image: np.ndarray[Any, Any]) -> Pixels | None:
    """uint8 H x W x 3 of an image from 0 to 1; None where a value is no number."""
    if image.dtype == np.uint8:
        return np.ascontiguousarray(image)
    if not np.isfinite(image).all():
        return None
    return np.ascontiguousarray((image.clip(0, 1) * 255).round().astype(np.uint8))


def _wrong_size(asked: tuple[int, int], made: tuple[int, ...]) -> RowRejected:
    return RowRejected(
        stage="check",
        reason="bad_size",
        message=f"the row asks for {asked[1]}x{asked[0]} (width x height), of which the pipeline "
        f"makes {made[1]}x{made[0]}; ask for that size",
    )
