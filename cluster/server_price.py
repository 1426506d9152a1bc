"""What the servers cost that make a job's images. Pure.

The worker that asks them needs no GPU and is not billed; the servers' devices are.
"""

from __future__ import annotations

from datetime import datetime

from cluster.lifetime import ServerBilling
from cluster.price import Price
from cluster.pricing import THIS_MACHINE, Machine, Takes, entry_for, price_on
from conf.price_book import PriceBook
from conf.schema import RunConfig
from conf.triton_config import addresses_of

_GPU = Takes(gpus=1.0, threads=0)
_ALL = Takes(gpus=0.0, threads=2**31)
_HERE = ("127.0.0.1", "::1", "localhost")


def server_billing(config: RunConfig) -> ServerBilling | None:
    """How a job pays for its servers; None: it has none."""
    if config.engine.name != "triton":
        return None
    return ServerBilling.OWNED if config.triton.owned else ServerBilling.SHARED


def server_price(config: RunConfig, book: PriceBook, *, at: datetime) -> Price:
    """What a device of the servers costs: one of its machine's GPUs, or a machine without any."""
    machine = server_machine(config)
    entry = entry_for(book, machine, at)
    takes = _ALL if isinstance(entry, str) or not entry.gpus else _GPU
    return price_on(book, machine, takes, at=at, output=config.output.path)


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
