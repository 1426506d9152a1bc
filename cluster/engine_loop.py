"""The engine loop: requests from the queue through the engine to the uploads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from cluster.coordinator import CoordinatorLink
from cluster.held_shard import HeldShard
from cluster.image_upload import ImageUploader
from cluster.worker_state import WorkerState
from conf.errors import RowRejected
from operators.engine import Engine, ImageFailure, ImageResult


class EngineLoop:
    """Drives an engine in the caller's thread and uploads in ``pool`` beside it.

    ``run`` returns when nothing is left to do or the worker drains, with all that the engine had
    finished on its way to the store, and raises what the engine raises: then the device is lost.
    How many finished images may be in memory is the state's to say: see ``WorkerState.bound``.

    Args:
        row_timeout_s: a row whose ticks took longer is quarantined.
    """

    def __init__(
        self,
        engine: Engine,
        uploader: ImageUploader,
        pool: ThreadPoolExecutor,
        state: WorkerState,
        *,
        link: CoordinatorLink,
        worker: str,
        row_timeout_s: float,
    ) -> None:
        self._engine = engine
        self._uploader = uploader
        self._pool = pool
        self._state = state
        self._link = link
        self._worker = worker
        self._row_timeout_s = row_timeout_s

    def run(self) -> None:
        """Tick until the work is over."""
        engine = self._engine
        while True:
            self._forget_revoked()
            requests = self._state.next_requests(room=engine.room, busy=engine.busy)
            if requests is None:
                break
            engine.admit(requests)
            for result in self._tick():
                self._route(result)
            self._cut_overdue()
        for result in self._finish():
            self._route(result)

    def _tick(self) -> list[ImageResult | ImageFailure]:
        if not self._engine.busy:
            return []
        with self._state.ticking():
            return self._engine.tick(more_to_come=self._state.more_to_come)

    def _finish(self) -> list[ImageResult | ImageFailure]:
        """A device that hangs hangs here as in a tick."""
        with self._state.ticking():
            return self._engine.finish()

    def _cut_overdue(self) -> None:
        """Quarantine the rows that keep their batch busy without an end."""
        overdue = self._engine.overdue(self._row_timeout_s)
        for request in overdue:
            held = self._state.leave_engine(request)
            if held is not None:
                self._state.reject(held, request, _overdue(self._row_timeout_s))
        if overdue:
            gone = {request.image_id for request in overdue}
            self._engine.discard(lambda request: request.image_id in gone)

    def _forget_revoked(self) -> None:
        """Drop what is no longer ours and say so: the board may have granted it to us again."""
        gone = self._state.forget_revoked()
        if gone:
            self._engine.discard(lambda request: not self._state.owned(request))
        for held in gone:
            self._link.returned(self._worker, held.shard_id, False)
            self._state.release(held.shard_id)

    def _route(self, result: ImageResult | ImageFailure) -> None:
        held = self._state.leave_engine(result.request)
        if held is None:
            return
        if isinstance(result, ImageFailure):
            error = RowRejected(stage=result.stage, reason=result.reason, message=result.message)
            self._state.reject(held, result.request, error)
            return
        self._state.begin_upload()
        self._pool.submit(self._upload, result, held)

    def _upload(self, result: ImageResult, held: HeldShard) -> None:
        try:
            if not self._state.store_lost and self._state.wants_image(held, result.request):
                self._state.finish(held, self._uploader.upload(result, held))
        except RowRejected as error:
            self._state.reject(held, result.request, error)
        except BaseException as error:  # noqa: BLE001 - a thread's boundary: it becomes the outcome
            self._state.fail(error)
        finally:
            self._state.end_upload()


def _overdue(limit_s: float) -> RowRejected:
    return RowRejected(
        stage="denoise",
        reason="row_timeout",
        message=f"it was denoised for more than {limit_s:g} s without an end (job.row_timeout_s); "
        "ask for fewer steps or a smaller size",
    )
