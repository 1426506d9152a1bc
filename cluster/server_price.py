"""What the servers cost that make a job's images. Pure.

The worker that asks them needs no GPU and is not billed; the servers' devices are.
"""

from __future__ import annotations

from cluster.lifetime import ServerBilling
from cluster.pricing import THIS_MACHINE, Machine, Takes
from conf.schema import RunConfig
from conf.triton_config import addresses_of

SERVER_DEVICE = Takes(gpus=1.0, threads=2**31)
"""A device of a server: one of its machine's GPUs; of a machine without any, all of it."""
_HERE = ("127.0.0.1", "::1", "localhost")


def server_billing(config: RunConfig) -> ServerBilling | None:
    """How a job pays for its servers; None: it has none."""
    if config.engine.name != "triton":
        return None
    return ServerBilling.OWNED if config.triton.owned else ServerBilling.SHARED


def server_machine(config: RunConfig) -> Machine:
    """What is known of the servers' machines: what ``pricing.*`` says. Servers on the machine of a
    local run are on this one."""
    pricing = config.pricing
    machine = Machine(
        provider=pricing.provider,
        region=pricing.region,
        instance_type=pricing.instance_type,
        purchase_option=pricing.purchase_option,
    )
    here = all(address.host in _HERE for address in addresses_of(config.triton))
    if machine == Machine() and here and config.cluster.address == "local":
        return Machine(**THIS_MACHINE)
    return machine
