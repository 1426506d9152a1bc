"""A quote of a job whose images Triton servers make: its pilot asks them, and they are priced.

The pilot asks as a worker does, and measures what a worker would be told: the device time of each
image, and how soon images come while others ask, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from random import Random

from cluster.lifetime import ServerBilling
from cluster.server_price import server_billing
from conf.errors import ConfigError, ServerLost, ServerUnfit
from conf.schema import RunConfig
from jobs.quote.pilot import Pilot, run_pilot
from jobs.quote.strata import Strata
from operators.engine import Engine


def refuse_remembered() -> None:
    """Rates of servers are not remembered.

    Raises:
        ConfigError: always.
    """
    raise ConfigError(
        "--remembered is for engines of this machine: how fast Triton servers were is not "
        "remembered, since it depends on who else asks them; leave it out to try a few rows"
    )


def pilot_through_servers(
    config: RunConfig, strata: Strata, *, limit_s: float, random: Random
) -> Pilot:
    """The pilot through the job's servers, which may be at others' work.

    Raises:
        ServerUnfit: they make no images.
        ConfigError: no image was finished.
    """
    # late: gRPC takes time to import, and tritonclient is an extra
    from operators.engines.triton import load

    with ExitStack() as closing:

        def enter() -> Engine:
            engine = load(config.triton, config.model, priority=config.job.priority)
            closing.callback(engine.close)
            return engine

        try:
            return run_pilot(
                strata, enter, config.output, limit_s=limit_s, random=random, through_servers=True
            )
        except ServerLost as error:
            raise ServerUnfit(str(error)) from error


def served_by(config: RunConfig) -> Iterator[str]:
    """What a quote of servers goes by, in sentences; none is remembered of them."""
    yield (
        "the time is that of servers as busy with others' requests as they were now; one worker "
        "asks for as much as their batches take, so that more workers make nothing faster"
    )
    if server_billing(config) is ServerBilling.SHARED:
        yield (
            "the cost is that of the device time which the servers tell for each image "
            "(triton.owned=false): the fuller others' requests make the batches, the less it is"
        )
    else:
        yield (
            "the cost is that of all the servers' devices for as long as the worker lives "
            "(triton.owned=true)"
        )
