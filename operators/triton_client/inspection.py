"""Finding the model on a server, before it is asked for any image."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from conf.errors import ServerUnfit
from operators.triton_client.client import TritonClient
from operators.triton_client.errors import Cause, ServerError
from operators.triton_client.server_model import ServerModel, read_model

_ANSWER_S = 10.0
_LOAD_S = 600.0
_MOST_NAMED = 10


async def inspect(client: TritonClient) -> ServerModel:
    """The model as the server has it, loaded if the server does that when it is told to.

    Raises:
        ServerError: the server does not answer.
        ServerUnfit: it has no such model, or one with another signature.
    """
    server = str(client.address)
    await client.live(timeout_s=_ANSWER_S)
    try:
        config = await client.config(timeout_s=_ANSWER_S)
    except ServerError as error:
        if error.cause is not Cause.NOT_LOADED:
            raise
        await _load(client)
        config = await client.config(timeout_s=_ANSWER_S)
    return read_model(config, server=server)


async def inspect_all(
    clients: Sequence[TritonClient],
) -> list[ServerModel | ServerError]:
    """The model of each server, or why it cannot be told now.

    Raises:
        ServerUnfit: a server has another model than the others, or none that fits.
    """
    answers = await asyncio.gather(*map(inspect, clients), return_exceptions=True)
    found: list[ServerModel | ServerError] = []
    for answer in answers:
        if not isinstance(answer, ServerModel | ServerError):
            raise answer
        found.append(answer)
    first: tuple[TritonClient, ServerModel] | None = None
    for client, model in zip(clients, found, strict=True):
        if isinstance(model, ServerError):
            continue
        first = first or (client, model)
        if model.identity != first[1].identity:
            raise ServerUnfit(
                f"the servers of triton.url have different models: {first[0].address} has "
                f"{first[1]}, {client.address} has {model}; expected the same on all of them"
            )
    return found


async def _load(client: TritonClient) -> None:
    try:
        await client.load(timeout_s=_LOAD_S)
    except ServerError as error:
        raise ServerUnfit(
            f"{client.address} has not loaded a model '{client.model}', and cannot be told to "
            f"({error.said}); {await _there(client)}; load it there, or give triton.model=…"
        ) from error


async def _there(client: TritonClient) -> str:
    try:
        names = await client.models(timeout_s=_ANSWER_S)
    except ServerError as error:
        return f"what its repository has it does not tell ({error.said})"
    few = ", ".join(names[:_MOST_NAMED]) + (", …" if len(names) > _MOST_NAMED else "")
    return f"its repository has {few or 'no model'}"
