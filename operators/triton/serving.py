"""A model in Triton's python backend: requests in, responses out, one engine between them.

Owns the translation between Triton's objects and the loop. What Triton's python module offers comes
in as ``backend``, since it exists in the server's process only.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

from conf.errors import ConfigError, ModelUnusable, RowRejected
from operators.engine import Engine, ImageFailure, ImageResult
from operators.engines import load_engine
from operators.triton.engine_loop import Answer, Cancelled, EngineLoop, EngineLost, Ticket
from operators.triton.rows import failure_message, read_request, result_tensors
from operators.triton.settings import ServerSettings, read_settings
from operators.triton_signature import INPUTS

_log = logging.getLogger(__name__)


class ServedModel:
    """One instance of an exported model.

    Dynamic: a batch that Triton formed is made to its end, then answered. Continuous: ``execute``
    returns as soon as the engine has taken the requests, and each is answered when its image is
    done; it waits while the engine holds all that it may, so that others stay in Triton's queue.

    Args:
        folder: the version's folder of the repository.
        arguments: what Triton gives to ``initialize``.
        backend: the module ``triton_python_backend_utils``.

    Raises:
        ConfigError: the settings, the machine or an option will not do.
        ModelUnusable: the model is absent or another than the exported one.
    """

    def __init__(self, folder: Path, arguments: Mapping[str, str], backend: Any) -> None:
        self._backend = backend
        self._settings = settings = read_settings(folder)
        config = json.loads(arguments["model_config"])
        self._continuous = backend.using_decoupled_model_transaction_policy(config)
        gpu = _gpu_of(arguments)
        if gpu is None:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        self._numbers = itertools.count()
        self._loop = EngineLoop(partial(load_on, gpu, settings), held=settings.held)
        info = self._loop.start()
        _log.info(
            "%s: %s on %s, %s, batches of up to %d",
            arguments["model_name"],
            info.name,
            info.device,
            info.precision,
            info.max_batch,
            extra={"event": "engine_ready"},
        )

    def execute(self, requests: Sequence[Any]) -> list[Any] | None:
        """The responses of a batch; None in continuous mode, where they are sent one by one."""
        if self._continuous:
            self._stream(requests)
            return None
        answers: list[Future[Answer | RowRejected]] = [Future() for _ in requests]
        tickets = [
            self._ticket(request, request.is_cancelled, answer.set_result)
            for request, answer in zip(requests, answers, strict=True)
        ]
        self._loop.submit([ticket for ticket in tickets if ticket])
        return [self._response(answer.result()) for answer in answers]

    def finalize(self) -> None:
        """Make and answer what was taken, then let the engine go."""
        self._loop.close()

    def _stream(self, requests: Sequence[Any]) -> None:
        for request in requests:
            sender = request.get_response_sender()
            ticket = self._ticket(request, sender.is_cancelled, partial(self._send, sender))
            if ticket:
                self._loop.submit([ticket])

    def _ticket(
        self,
        request: Any,
        cancelled: Callable[[], bool],
        answer: Callable[[Answer | RowRejected], None],
    ) -> Ticket | None:
        """The request for the loop; None, and its answer is given, where it can be no image."""
        find = self._backend.get_input_tensor_by_name
        tensors = {name: find(request, name).as_numpy() for name in INPUTS}
        try:
            asked = read_request(
                tensors,
                number=next(self._numbers),
                max_pixels=self._settings.engine.max_pixels,
            )
        except RowRejected as error:
            answer(error)
            return None
        return Ticket(request=asked, cancelled=cancelled, answer=answer)

    def _send(self, sender: Any, answer: Answer | RowRejected) -> None:
        final = self._backend.TRITONSERVER_RESPONSE_COMPLETE_FINAL
        try:
            sender.send(self._response(answer), flags=final)
        except Exception:  # noqa: BLE001  whoever asked is gone; the others must be served
            _log.exception("a response could not be sent", extra={"event": "response_unsent"})

    def _response(self, answer: Answer | RowRejected) -> Any:
        backend = self._backend
        if isinstance(answer, ImageResult):
            made = result_tensors(answer, revision=self._settings.revision).items()
            tensors = [backend.Tensor(name, values) for name, values in made]
            return backend.InferenceResponse(output_tensors=tensors)
        codes = backend.TritonError
        if isinstance(answer, Cancelled):
            # Triton's statistics count it as a success
            _log.info("a cancelled request left", extra={"event": "request_cancelled"})
            return self._error("the request was cancelled", codes.CANCELLED)
        if isinstance(answer, EngineLost):
            message = f"the engine is lost ({answer.reason}); load the model anew"
            return self._error(message, codes.UNAVAILABLE)
        return self._error(self._failure(answer), codes.INVALID_ARG)

    def _error(self, message: str, code: int) -> Any:
        backend = self._backend
        return backend.InferenceResponse(
            output_tensors=[], error=backend.TritonError(message, code)
        )

    def _failure(self, answer: ImageFailure | RowRejected) -> str:
        return failure_message(
            stage=answer.stage,
            reason=answer.reason,
            message=answer.message,
            device_ns=answer.device_ns if isinstance(answer, ImageFailure) else 0,
            revision=self._settings.revision,
        )


def _gpu_of(arguments: Mapping[str, str]) -> int | None:
    """The GPU that Triton gave to this instance, None for the CPU."""
    on_gpu = arguments["model_instance_kind"] == "GPU"
    return int(arguments["model_instance_device_id"]) if on_gpu else None


def load_on(gpu: int | None, settings: ServerSettings) -> Engine:
    """Load the engine, on this GPU if one is named; what this thread computes stays there.

    Raises:
        ConfigError: there is no such GPU, or an option is not for this model or machine.
        ModelUnusable: the model is absent or another than the exported one.
    """
    if gpu is not None:
        _use_gpu(gpu)
    engine = load_engine(settings.engine, settings.model)
    found = engine.info.model_revision
    if found != settings.revision:
        raise ModelUnusable(
            f"the model in {settings.model.path} has revision {found}; expected "
            f"{settings.revision}, which was exported. Export the model again"
        )
    return engine


def _use_gpu(gpu: int) -> None:
    import torch  # late: the simulated engine does without it

    found = torch.cuda.device_count()
    if gpu >= found:
        raise ConfigError(
            f"the instance is for GPU {gpu}, and torch {torch.__version__} finds {found} GPUs "
            "here; install a torch that is built for this GPU, or export with triton.gpus=0"
        )
    torch.cuda.set_device(gpu)
