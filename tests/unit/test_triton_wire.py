"""A request as tensors, and tensors as an image."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest
from tritonclient.grpc import InferResult, service_pb2
from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor

from operators.request import Request
from operators.triton_client.errors import Cause, ServerError
from operators.triton_client.memory_owner import MemoryOwner
from operators.triton_client.memory_region import MemoryRegion
from operators.triton_client.wire import answer_of, inputs_of, outputs_wanted
from operators.triton_signature import INPUTS

REQUEST = Request(
    image_id="000000007-0",
    row_id=7,
    image_index=0,
    prompt="ein Fuchs 🦊",
    negative_prompt="",
    seed=2**63 - 1,
    width=24,
    height=16,
    steps=30,
    guidance_scale=7.1,
    sampler="ddim",
)


def test_a_request_is_a_batch_of_one_row_with_every_value_exact() -> None:
    inputs = {one.name(): one for one in inputs_of(REQUEST)}
    assert list(inputs) == list(INPUTS)
    read = {}
    for name, one in inputs.items():
        assert (one.shape(), one.datatype()) == ([1, 1], INPUTS[name].datatype)
        raw = one._get_content()
        if one.datatype() == "BYTES":
            read[name] = deserialize_bytes_tensor(raw)[0].decode()
        else:
            kinds = {"INT64": np.int64, "INT32": np.int32, "FP64": np.float64}
            read[name] = np.frombuffer(raw, kinds[one.datatype()])[0].item()
    assert read == {name: getattr(REQUEST, name) for name in INPUTS}


def test_half_a_character_is_a_fault_of_its_row() -> None:
    odd = Request(
        **{name: getattr(REQUEST, name) for name in Request.__slots__} | {"prompt": "\ud800"}
    )
    with pytest.raises(ServerError, match="prompt holds half a character") as refused:
        inputs_of(odd)
    assert refused.value.cause is Cause.ROW
    assert refused.value.row is not None
    assert (refused.value.row.stage, refused.value.row.reason) == ("condition", "bad_prompt")


def result(**changes: object) -> InferResult:
    values = {
        "image": np.arange(16 * 24 * 3, dtype=np.uint8).reshape(1, 16, 24, 3),
        "gpu_seconds": np.array([[0.125]]),
        "batch_rows": np.array([[7]], np.int32),
        "truncated_tokens": np.array([[2]], np.int32),
        "revision": np.array([[b"r7"]], np.object_),
    } | changes
    response = service_pb2.ModelInferResponse()
    types = {"uint8": "UINT8", "float64": "FP64", "int32": "INT32", "object": "BYTES"}
    for name, value in values.items():
        if value is None:
            continue
        response.outputs.add(name=name, datatype=types[str(value.dtype)], shape=value.shape)
        packed = serialize_byte_tensor(value).item() if value.dtype == object else value.tobytes()
        response.raw_output_contents.append(packed)
    return InferResult(response)


def test_an_answer_is_an_image_and_what_it_cost() -> None:
    answer = answer_of(result(), REQUEST, None)
    assert answer.pixels.shape == (16, 24, 3)
    assert answer.pixels[15, 23].tolist() == [125, 126, 127]
    assert (answer.gpu_seconds, answer.batch_rows, answer.truncated_tokens) == (0.125, 7, 2)
    assert answer.revision == "r7"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_rows": None}, "its answer has no output 'batch_rows'"),
        ({"image": None}, "its answer has no output 'image'"),
        (
            {"image": np.zeros((1, 24, 16, 3), np.uint8)},
            r"an image of shape \[1, 24, 16, 3\] and type uint8; expected \[1, 16, 24, 3\]",
        ),
        ({"gpu_seconds": np.array([[np.nan]])}, "gpu_seconds nan; expected 0 or more"),
        ({"gpu_seconds": np.array([[-1.0]])}, r"gpu_seconds -1\.0; expected 0 or more"),
    ],
)
def test_an_answer_that_is_no_such_image_is_refused(
    changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ServerError, match=message) as refused:
        answer_of(result(**changes), REQUEST, None)
    assert refused.value.cause is Cause.UNFIT


@pytest.fixture
def region() -> Iterator[MemoryRegion]:
    with closing(MemoryOwner()) as owner, closing(MemoryRegion(owner.name())) as made:
        made.hide()
        yield made


def described(**changes: object) -> InferResult:
    """An answer without the bytes of its image."""
    found = result(**changes)
    found.get_response().raw_output_contents[0] = b""
    return found


def test_an_image_that_was_written_to_its_place_is_copied_from_there(region: MemoryRegion) -> None:
    region.lend(1)
    place = region.lend(16 * 24 * 3)
    assert place is not None
    image = next(one for one in outputs_wanted(place) if one.name() == "image")
    told = {name: str(value) for name, value in image._get_tensor().parameters.items()}
    assert told == {
        "shared_memory_region": f'string_param: "{region.name}"\n',
        "shared_memory_byte_size": "int64_param: 1152\n",
        "shared_memory_offset": f"int64_param: {place.offset}\n",
    }
    sent = answer_of(result(), REQUEST, None).pixels
    region.memory[place.offset : place.offset + place.size] = sent.tobytes()
    pixels = answer_of(described(), REQUEST, place).pixels
    region.memory[place.offset : place.offset + place.size] = bytes(place.size)
    assert (pixels == sent).all()
    assert pixels.shape == (16, 24, 3)


def test_an_image_that_is_sent_although_it_has_a_place_is_taken(region: MemoryRegion) -> None:
    place = region.lend(16 * 24 * 3)
    assert answer_of(result(), REQUEST, place).pixels[15, 23].tolist() == [125, 126, 127]


def test_an_image_that_is_nowhere_is_none(region: MemoryRegion) -> None:
    place = region.lend(16 * 24 * 3)
    with pytest.raises(
        ServerError, match="has no image, and none is where it was to write it"
    ) as e:
        answer_of(described(), REQUEST, place)
    assert e.value.cause is Cause.UNWRITTEN


def test_an_image_of_another_size_is_refused_in_its_place_too(region: MemoryRegion) -> None:
    place = region.lend(16 * 24 * 3)
    with pytest.raises(ServerError, match=r"an image of shape \[1, 24, 16, 3\] and type uint8; "):
        answer_of(described(image=np.zeros((1, 24, 16, 3), np.uint8)), REQUEST, place)
