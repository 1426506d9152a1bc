"""The step-batched engine: rows that differ share every forward pass.

A tick runs the denoiser once on all rows of one latent shape, whatever their sampler, step count,
position, guidance and prompt; finished rows are decoded and their slots filled again. Owns the
order of a tick and the fate of each request; the arithmetic lives in ``slots``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import torch

from conf.errors import RowRejected
from operators.batch_size import FIRST_SLOTS, BatchSizes
from operators.batcher import Batcher, Shape
from operators.conditioning import Conditioner
from operators.decode import decode_latents, finite
from operators.device import Fetch, device_for
from operators.device_time import DeviceMeter
from operators.engine import EngineInfo, EngineStats, ImageFailure, ImageResult
from operators.families.family import Conditioning, Family, Text
from operators.fill import FillCount
from operators.prediction import DenoisingWork, Predictor
from operators.readback import Readback
from operators.request import Request
from operators.row_errors import nan_image, row_error
from operators.sampler_table import compile_sampler
from operators.slots import Slots, start_row
from operators.splitting import BatchCaps, run_split

Outcome = ImageResult | ImageFailure
_MOST_TEXTS = 16
"""Texts that are encoded at once."""


class StepwiseEngine:
    """See ``operators.engine.Engine``.

    While a batch is denoised the host waits for the device only when that is as many laps behind as
    its clock allows, on a GPU three steady ticks. It takes pictures over when they have arrived.

    Invariant: an admitted request is in ``_new``, in the batcher (then it is in ``_work``) or in
    ``_leaving`` until its outcome is returned or it is discarded; in the batcher its row has a slot
    in ``_slots`` from entering on.

    Args:
        sizes: finds the slots of each shape; None: ``info.max_batch`` of each.
    """

    def __init__(
        self, family: Family, info: EngineInfo, *, sizes: BatchSizes | None = None
    ) -> None:
        self._family = family
        self._info = info
        self._device = device_for(family.device)
        self._sizes = sizes
        self._batcher = Batcher(max_batch=FIRST_SLOTS if sizes else info.max_batch)
        self._caps = BatchCaps()
        self._predictor = Predictor(family, self._device, caps=self._caps)
        self._conditioner = Conditioner(family, caps=self._caps)
        self._meter = DeviceMeter(self._device.clock)
        self._fill = FillCount()
        self._work: dict[int, DenoisingWork] = {}
        self._new: list[DenoisingWork] = []
        self._slots: dict[Shape, Slots] = {}
        self._checks: deque[tuple[Sequence[DenoisingWork], Fetch]] = deque()
        self._leaving: deque[Readback[DenoisingWork]] = deque()
        self._admitted = 0

    @property
    def info(self) -> EngineInfo:
        return self._info

    @property
    def stats(self) -> EngineStats:
        active = self._batcher.active
        return EngineStats(
            ticks=self._fill.ticks,
            occupied=self._fill.occupied,
            offered=self._fill.offered,
            other_shapes=self._fill.other_shapes,
            starved=self._fill.starved,
            busy_ns=self._meter.busy_ns,
            active=active,
            waiting=self._batcher.inside - active + len(self._new),
        )

    @property
    def room(self) -> int:
        return max(0, self._batcher.room - len(self._new))

    @property
    def busy(self) -> bool:
        return bool(self._new) or bool(self._leaving) or self._batcher.inside > 0

    def admit(self, requests: Sequence[Request]) -> None:
        for request in requests:
            work = DenoisingWork(
                number=self._admitted,
                request=request,
                two_pass_guidance=self._family.two_pass_guidance,
            )
            self._new.append(work)
            self._admitted += 1

    def overdue(self, limit_s: float) -> list[Request]:
        return [work.request for work in self._work.values() if work.overdue(limit_s)]

    def discard(self, unwanted: Callable[[Request], bool]) -> int:
        kept = [work for work in self._new if not unwanted(work.request)]
        dropped = len(self._new) - len(kept)
        self._new = kept
        inside = [work for work in self._work.values() if unwanted(work.request)]
        self._forget(inside)
        return dropped + len(inside) + sum(part.discard(unwanted) for part in self._leaving)

    @torch.inference_mode()
    def tick(self, *, more_to_come: bool = False) -> list[Outcome]:
        self._meter.start()
        outcomes = self._compile_new()
        plan = self._batcher.next_tick()
        if plan is not None:
            outcomes += self._enter(plan.shape, [self._work[number] for number in plan.entering])
            running = [self._work[number] for number in plan.rows if number in self._work]
            if running:
                self._fill.count(plan, rows=len(running), more_to_come=more_to_come)
                outcomes += self._denoise(plan.shape, running)
                outcomes += self._finish(plan.shape, running)
        return outcomes + self._take_arrived(wait=self._batcher.inside == 0)

    def finish(self) -> list[Outcome]:
        outcomes = self._take_arrived(wait=True)
        self._meter.settle()
        return outcomes

    def _compile_new(self) -> list[Outcome]:
        """Compile the samplers of new requests; those with a table wait for a slot from now on.

        A size that the model cannot make is refused here too, before anything shares its batch.
        """
        failed: list[tuple[DenoisingWork, RowRejected]] = []
        new, self._new = self._new, []
        for work in new:
            request = work.request
            self._work[work.number] = work
            try:
                self._family.latent_shape(*work.shape)
                levels = self._family.noise_levels(*work.shape, request.steps)
                table = compile_sampler(
                    self._family.scheduler_config,
                    request.sampler,
                    request.steps,
                    mu=levels.mu,
                    sigmas=levels.sigmas,
                )
            except RowRejected as error:
                self._batcher.add(work.number, shape=work.shape, steps=request.steps)
                failed.append((work, error))
                continue
            work.row = start_row(table, request.seed)
            self._batcher.add(work.number, shape=work.shape, steps=table.calls)
            if self._sizes:
                self._batcher.resize(work.shape, self._sizes.slots(work.shape))
        self._meter.lap([(work, 1) for work in new])
        return self._reject(failed)

    def _enter(self, shape: Shape, entering: Sequence[DenoisingWork]) -> list[Outcome]:
        """Condition the entering rows and give them their slots."""
        if not entering:
            return []
        for work in entering:
            work.start()
        texts = self._condition(shape, entering)
        failed: list[tuple[DenoisingWork, RowRejected]] = []
        slots = self._slots.setdefault(
            shape, Slots(self._family.latent_shape(*shape), device=self._device)
        )
        for work in entering:
            made = [texts[text] for text in work.texts]
            error = next((one for one in made if isinstance(one, Exception)), None)
            if error is not None:
                failed.append((work, row_error("condition", error)))
                continue
            conditionings = [one for one in made if isinstance(one, Conditioning)]
            work.prompt = conditionings[0]
            work.negative = conditionings[1] if work.guided else None
            assert work.row is not None
            slots.enter(work.row)
        return self._reject(failed)

    def _condition(
        self, shape: Shape, entering: Sequence[DenoisingWork]
    ) -> dict[Text, Conditioning | Exception]:
        """Encode the texts of the entering rows, and of the next ones while it runs anyway."""
        batch = min(self._info.max_batch, _MOST_TEXTS)
        took_part = [work for work in entering if self._missing(work)]
        wanted = dict.fromkeys(text for work in entering for text in work.texts)
        missing = sum(text not in self._conditioner for text in wanted)
        if took_part:
            for number in self._batcher.next_waiting(shape, batch):
                ahead = self._work[number]
                fresh = [text for text in self._missing(ahead) if text not in wanted]
                if missing + len(fresh) > batch:
                    break
                missing += len(fresh)
                wanted |= dict.fromkeys(fresh)
                took_part += [ahead] if fresh else []
        made = self._conditioner.condition(list(wanted), batch=batch)
        self._meter.lap([(work, 1) for work in took_part])
        return made

    def _missing(self, work: DenoisingWork) -> list[Text]:
        return [text for text in work.texts if text not in self._conditioner]

    def _denoise(self, shape: Shape, running: list[DenoisingWork]) -> list[Outcome]:
        """One model call for every row; rows that fail leave, the others advance."""
        slots = self._slots[shape]
        places = {id(row): place for place, row in enumerate(slots.rows)}
        works = sorted(running, key=lambda work: places[id(work.row)])
        outputs, failed = self._predictor.predict(slots, works)
        advanced = run_split(
            range(len(works)),
            lambda part: list(slots.next_latents(part, outputs)),
            caps=self._caps,
            key=("advance", shape),
        )
        latents = torch.zeros_like(outputs)
        for place, answer in enumerate(advanced):
            if isinstance(answer, Exception):
                failed.setdefault(place, answer)
            else:
                latents[place] = answer
        slots.commit(latents, outputs)
        self._meter.lap(
            [(work, work.weight) for work in works],
            note=lambda spent_ns: self._stepped(shape, works, spent_ns),
        )
        self._checks.append((works, self._device.fetch([finite(latents)])))
        rejected = [(works[place], row_error("denoise", error)) for place, error in failed.items()]
        gone = {work.number for work, _ in rejected}
        return self._reject(
            rejected + [(w, nan_image()) for w in self._take_lost() if w.number not in gone]
        )

    def _take_lost(self) -> list[DenoisingWork]:
        """The rows that are known by now to have become no numbers; the others never share them."""
        lost: dict[int, DenoisingWork] = {}
        while self._checks and self._checks[0][1].arrived():
            works, fetch = self._checks.popleft()
            for work, is_finite in zip(works, fetch.take()[0], strict=True):
                if not is_finite and work.number in self._work:
                    lost[work.number] = work
        return list(lost.values())

    def _stepped(self, shape: Shape, works: Sequence[DenoisingWork], spent_ns: int) -> None:
        """A step of these rows is over, and took so long."""
        for work in works:
            work.ran_ns += spent_ns
            work.took_part(rows=len(works))
        if self._sizes is None:
            return
        passes = sum(work.weight for work in works)
        if self._caps.of(("denoise", shape), passes) < passes:
            self._sizes.too_many(shape, rows=len(works))
        self._sizes.observe(shape, rows=len(works), passes=passes, spent_ns=spent_ns)
        if self._batcher.holds(shape):
            self._batcher.resize(shape, self._sizes.slots(shape))

    def _finish(self, shape: Shape, running: Sequence[DenoisingWork]) -> list[Outcome]:
        """Decode the rows that have all their steps behind them; their pictures leave."""
        works = [w for w in running if w.number in self._work and w.row and w.row.finished]
        if not works:
            return []
        slots = self._slots[shape]
        places = {id(row): place for place, row in enumerate(slots.rows)}
        latents = slots.newest([places[id(work.row)] for work in works])
        decoded = run_split(
            list(latents),
            lambda part: decode_latents(self._family, part),
            caps=self._caps,
            key=("decode", shape),
        )
        self._meter.lap([(work, 1) for work in works])
        made, failed = [], []
        for work, answer in zip(works, decoded, strict=True):
            if isinstance(answer, Exception):
                failed.append((work, row_error("decode", answer)))
            else:
                made.append((work, answer))
        if made:
            self._forget([work for work, _ in made])
            self._leaving.append(Readback(self._device, made))
        return self._reject(failed)

    def _take_arrived(self, *, wait: bool) -> list[Outcome]:
        """What came of the pictures that are on the host by now; ``wait``: of all of them."""
        outcomes: list[Outcome] = []
        while self._leaving and (wait or self._leaving[0].arrived()):
            arrived = self._leaving.popleft().take()
            self._meter.settle_passed()
            for work, pixels in arrived:
                if pixels is None:
                    outcomes.append(work.failure(nan_image()))
                else:
                    truncated = work.prompt.truncated_tokens if work.prompt else 0
                    outcomes.append(work.result(pixels, truncated_tokens=truncated))
        return outcomes

    def _reject(self, failed: Sequence[tuple[DenoisingWork, RowRejected]]) -> list[Outcome]:
        if failed:
            self._meter.settle()
        self._forget([work for work, _ in failed])
        return [work.failure(error) for work, error in failed]

    @torch.inference_mode()
    def _forget(self, works: Sequence[DenoisingWork]) -> None:
        self._batcher.remove([work.number for work in works])
        for work in works:
            del self._work[work.number]
        gone = [work.row for work in works if work.row is not None]
        for shape in {work.shape for work in works}:
            if shape in self._slots:
                self._slots[shape].leave(gone)
                if not self._slots[shape].rows:
                    del self._slots[shape]
