"""Messages that are too large for what lies between us and a real tritonserver."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest

from conf.errors import ServerUnfit
from operators.engine import ImageFailure, ImageResult
from tests.grpc_proxy import proxy_to
from tests.scripted_triton import SIZE, drain, engine_at_url, row, write_repository
from tests.triton_server import TritonServer

IMAGE = 3 * SIZE * SIZE
LIMIT = 4096


@pytest.fixture(scope="module")
def server(triton: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    folder = tmp_path_factory.mktemp("sizes")
    repository = write_repository(folder / "models")
    with TritonServer(folder, repository) as running:
        yield running


def test_text_that_is_too_large_for_the_way_costs_its_row_alone_and_is_told_with_its_size(
    server: TritonServer,
) -> None:
    with proxy_to(server.grpc, request_bytes=LIMIT) as proxy:
        engine = engine_at_url(f"grpc://{proxy}", shared_memory="off")
        engine.admit([row(0), row(1, "fox " * LIMIT), row(2)])
        found = {outcome.request.row_id: outcome for outcome in drain(engine)}
        engine.close()
    failure = found.pop(1)
    assert isinstance(failure, ImageFailure)
    assert (failure.stage, failure.reason) == ("denoise", "message_too_large")
    assert failure.message.startswith(
        f"grpc://{proxy} or what lies before it lets no message of this size through ("
    )
    assert "larger than max (1" in failure.message
    assert (
        f"the request has {4 * LIMIT:,} bytes of text, its image of {SIZE}x{SIZE} {IMAGE:,} bytes; "
        "raise the limit there (gRPC's own is 4,194,304 bytes a message), or ask for a smaller "
        "size" in failure.message
    )
    assert all(isinstance(outcome, ImageResult) for outcome in found.values())
    assert sorted(found) == [0, 2]


def test_images_that_are_too_large_for_the_way_are_told_before_anything_starts(
    server: TritonServer,
) -> None:
    with (
        proxy_to(server.grpc, answer_bytes=IMAGE) as proxy,
        pytest.raises(
            ServerUnfit,
            match=rf"^no Triton server makes an image: grpc://{proxy}: it or what lies before it "
            rf"lets no message of this size through \(.*larger than max.*{IMAGE}\)+; the request "
            rf"has 7 bytes of text, its image of {SIZE}x{SIZE} {IMAGE:,} bytes; raise the limit",
        ),
    ):
        engine_at_url(f"grpc://{proxy}", shared_memory="off")


def test_a_larger_image_than_the_others_is_the_only_one_that_is_given_up(
    server: TritonServer,
) -> None:
    with proxy_to(server.grpc, answer_bytes=2 * IMAGE) as proxy:
        engine = engine_at_url(f"grpc://{proxy}", shared_memory="off")
        large = dataclasses.replace(row(1), width=4 * SIZE)
        engine.admit([row(0), large, row(2)])
        found = {outcome.request.row_id: outcome for outcome in drain(engine)}
        engine.close()
    failure = found.pop(1)
    assert isinstance(failure, ImageFailure)
    assert failure.reason == "message_too_large"
    assert f"its image of {4 * SIZE}x{SIZE} {4 * IMAGE:,} bytes" in failure.message
    assert all(isinstance(outcome, ImageResult) for outcome in found.values())
