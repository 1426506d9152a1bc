"""What is refused of a server's model, with what was expected and found."""

from __future__ import annotations

import pytest
from tritonclient.grpc import model_config_pb2

from conf.errors import ServerUnfit
from operators.triton_client.server_model import (
    MODEL_PARAMETER,
    REVISION_PARAMETER,
    check_priority,
    read_model,
)
from operators.triton_signature import INPUTS, OUTPUTS, VERSION, VERSION_PARAMETER

TYPES = {"BYTES": "TYPE_STRING"}


def config(**parameters: str) -> model_config_pb2.ModelConfig:
    """As an exported model has it."""
    made = model_config_pb2.ModelConfig(name="shapes", max_batch_size=8)
    for tensors, group in ((INPUTS, made.input), (OUTPUTS, made.output)):
        for name, tensor in tensors.items():
            one = group.add(name=name, dims=tensor.dims)
            one.data_type = model_config_pb2.DataType.Value(
                TYPES.get(tensor.datatype, f"TYPE_{tensor.datatype}")
            )
    for name, value in ({VERSION_PARAMETER: VERSION} | parameters).items():
        made.parameters[name].string_value = value
    made.instance_group.add(count=1)
    return made


def read(made: model_config_pb2.ModelConfig):
    return read_model(made, server="grpc://gpu-1:8001")


def test_an_exported_model_says_what_it_is() -> None:
    found = read(config(**{MODEL_PARAMETER: "Shapes", REVISION_PARAMETER: "abc"}))
    assert (found.model, found.revision, found.max_batch) == ("Shapes", "abc", 8)
    assert (found.streams, found.instances, found.gpus) == (False, 1, False)
    assert found.mode == "dynamic batching"


def test_a_decoupled_model_is_asked_by_streams_and_every_gpu_has_its_instances() -> None:
    made = config()
    made.model_transaction_policy.decoupled = True
    made.instance_group[0].count = 2
    made.instance_group[0].gpus.extend([0, 1, 2])
    found = read(made)
    assert (found.streams, found.instances, found.gpus) == (True, 6, True)
    assert found.mode == "continuous"


def refusal(made: model_config_pb2.ModelConfig) -> str:
    with pytest.raises(ServerUnfit) as refused:
        read(made)
    assert "'imagemill triton export'" in str(refused.value)
    return str(refused.value)


def test_a_model_of_somebody_else_is_refused() -> None:
    made = config()
    del made.parameters[VERSION_PARAMETER]
    assert refusal(made).startswith(
        "model 'shapes' on grpc://gpu-1:8001 was not exported by ImageMill: it has no parameter "
        "'imagemill_signature'; expected signature 2; "
    )


def test_a_model_that_another_version_exported_is_refused() -> None:
    assert refusal(config(**{VERSION_PARAMETER: "99"})).startswith(
        "model 'shapes' on grpc://gpu-1:8001 has signature 99; this client expected 2: server and "
        "client are of different versions of ImageMill; "
    )


def test_a_tensor_of_another_type_or_shape_is_named() -> None:
    made = config()
    made.input[2].data_type = model_config_pb2.TYPE_INT32
    assert (
        "has the input 'seed' of type INT32 and dims [1]; expected the input 'seed' of type INT64 "
        "and dims [1]" in refusal(made)
    )
    made = config()
    made.output[0].dims[2] = 4
    assert (
        "has the output 'image' of type UINT8 and dims [-1, -1, 4]; expected the output 'image' of "
        "type UINT8 and dims [-1, -1, 3]" in refusal(made)
    )


def test_a_tensor_too_few_or_too_many_is_named() -> None:
    made = config()
    del made.output[1]
    assert "has no output 'gpu_seconds'; expected the output 'gpu_seconds' of type FP64" in refusal(
        made
    )
    made = config()
    made.input.add(name="lora", dims=[1], data_type=model_config_pb2.TYPE_STRING)
    assert "wants the input 'lora', which this client does not know; expected prompt, " in refusal(
        made
    )


def test_an_output_more_is_of_no_harm() -> None:
    made = config()
    made.output.add(name="depth", dims=[1], data_type=model_config_pb2.TYPE_FP32)
    assert read(made).max_batch == 8


def test_a_priority_is_for_a_server_that_has_levels() -> None:
    made = config()
    check_priority(0, read(made), server="grpc://gpu-1:8001")
    with pytest.raises(
        ServerUnfit,
        match=r"^job\.priority=1, but grpc://gpu-1:8001 has no priority levels for this model; "
        r"expected 0; export it with more triton\.priority_levels, or change job\.priority$",
    ):
        check_priority(1, read(made), server="grpc://gpu-1:8001")
    made.dynamic_batching.priority_levels = 2
    check_priority(2, read(made), server="grpc://gpu-1:8001")
