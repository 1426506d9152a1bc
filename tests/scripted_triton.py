"""A Triton model repository with the scripted model, and the engine that asks its servers."""

from __future__ import annotations

import dataclasses
import shutil
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

from conf.schema import ModelConfig, RunConfig
from conf.triton_server import TritonServerConfig
from jobs.configure import compose
from operators.engine import ImageFailure, ImageResult
from operators.engines.triton import TritonEngine, load
from operators.request import Request
from operators.triton.repository_config import Served, config_text
from tests.triton_server import TritonServer

MODEL = "scripted"
SIZE = 32


def model_config() -> ModelConfig:
    """The defaults of rows for the scripted model."""
    return dataclasses.replace(
        _composed().model, name=MODEL, width=SIZE, height=SIZE, needs_gpu=False
    )


def served(*, name: str = MODEL, revision: str, max_batch: int) -> Served:
    """The scripted model as a server has it."""
    return Served(name=name, model=model_config(), revision=revision, max_batch=max_batch, gpus=0)


def write_repository(
    folder: Path, *, name: str = MODEL, revision: str = "r1", max_batch: int = 4, **keys: Any
) -> Path:
    """Put the scripted model into a repository; ``keys`` are those of ``triton export``."""
    described = served(name=name, revision=revision, max_batch=max_batch)
    text = config_text(described, TritonServerConfig(**{"delay_ms": 1.0} | keys))
    warm_up = text.index("model_warmup [")
    text = text[:warm_up] + text[text.index("\n]\n", warm_up) + 3 :]
    version = folder / name / "1"
    version.mkdir(parents=True, exist_ok=True)
    shutil.copy(Path(__file__).with_name("triton_scripted_model.py"), version / "model.py")
    (folder / name / "config.pbtxt").write_text(text)
    return folder


class HasAddress(Protocol):
    """A server: ``grpc`` is its host:port."""

    @property
    def grpc(self) -> str: ...


def engine_at(*servers: HasAddress, priority: int = 0, **keys: Any) -> TritonEngine:
    """The engine for these servers, with ``triton.*`` keys."""
    url = ",".join(f"grpc://{server.grpc}" for server in servers)
    return engine_at_url(url, priority=priority, **keys)


@contextmanager
def engines_closed() -> Iterator[Callable[..., TritonEngine]]:
    """``engine_at``, whose engines are closed at the end."""
    with ExitStack() as closing:

        def make(*servers: HasAddress, **keys: Any) -> TritonEngine:
            engine = engine_at(*servers, **keys)
            closing.callback(engine.close)
            return engine

        yield make


def engine_at_url(url: str, *, priority: int = 0, **keys: Any) -> TritonEngine:
    """The engine for servers at a ``triton.url``."""
    config = dataclasses.replace(_composed(url=url).triton, **keys)
    return load(config, model_config(), priority=priority)


def _composed(url: str = "grpc://127.0.0.1:1") -> RunConfig:
    return compose(["engine=triton", f"triton.url={url}", "input.path=none", "output.path=none"])


def pending(server: TritonServer, model: str) -> int:
    """How many requests wait in the queue of a model."""
    with urllib.request.urlopen(f"http://127.0.0.1:{server.ports.metrics}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    series = f'nv_inference_pending_request_count{{model="{model}"'
    return sum(int(line.rpartition(" ")[2]) for line in lines if line.startswith(series))


def row(number: int, prompt: str = "a fox") -> Request:
    return Request(
        image_id=f"{number:09d}-0",
        row_id=number,
        image_index=0,
        prompt=prompt,
        negative_prompt="",
        seed=number,
        width=SIZE,
        height=SIZE,
        steps=4,
        guidance_scale=1.0,
        sampler="ddim",
    )


def drain(
    engine: TritonEngine, meanwhile: Callable[[int], None] = lambda _: None
) -> list[ImageResult | ImageFailure]:
    """Tick until nothing is inside; ``meanwhile`` hears how many outcomes there are by now."""
    outcomes: list[ImageResult | ImageFailure] = []
    while engine.busy:
        outcomes += engine.tick()
        meanwhile(len(outcomes))
    return outcomes


def numbers(outcomes: Sequence[ImageResult | ImageFailure]) -> list[int]:
    return sorted(outcome.request.row_id for outcome in outcomes)
