"""Which price of a book holds for a worker: by what is known of its node, no guess. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from fractions import Fraction

from cluster.price import Price
from conf.price_book import PLACE, InstancePrice, PriceBook, StoragePrice
from conf.schema import RunConfig

_LABELS = {
    "instance_type": ("node.kubernetes.io/instance-type",),
    "region": ("ray.io/availability-region", "topology.kubernetes.io/region"),
    "zone": ("ray.io/availability-zone", "topology.kubernetes.io/zone"),
    "purchase_option": (
        "ray.io/market-type",
        "karpenter.sh/capacity-type",
        "eks.amazonaws.com/capacityType",
        "cloud.google.com/gke-provisioning",
    ),
}
"""Node labels that tell; the ``ray.io`` ones Ray sets itself where KubeRay passes them on."""
_VARIABLES = {
    "provider": ("IMAGEMILL_PROVIDER",),
    "instance_type": ("IMAGEMILL_INSTANCE_TYPE",),
    "region": ("IMAGEMILL_REGION", "RAY_NODE_REGION"),
    "zone": ("IMAGEMILL_ZONE", "RAY_NODE_ZONE"),
    "purchase_option": ("IMAGEMILL_PURCHASE_OPTION", "RAY_NODE_MARKET_TYPE"),
}
"""Environment variables of the worker that tell, such as by Kubernetes' downward API."""
THIS_MACHINE = {"provider": "local", "instance_type": "local", "purchase_option": "owned"}
_FEW = 3
"""How many of a book's instance types are named."""
_WORDS = {"standard": "on-demand", "ondemand": "on-demand"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What is known of a worker's node, None where nobody says."""

    provider: str | None = None
    region: str | None = None
    zone: str | None = None
    instance_type: str | None = None
    purchase_option: str | None = None

    def __str__(self) -> str:
        known = [f"{name} {value}" for name, value in asdict(self).items() if value is not None]
        return ", ".join(known) or "nothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Takes:
    """What a worker takes of its node, and what of each the node has; 0: that is not known."""

    gpus: float
    threads: int
    node_gpus: float = 0
    node_cpus: float = 0


def machine_of(
    config: RunConfig, labels: Mapping[str, str], environment: Mapping[str, str]
) -> Machine:
    """What is known of a node: the configuration goes first, then Ray's labels of the node, then
    the environment. Of the machine that a run has started Ray on, ``local`` is known."""
    found: dict[str, str | None] = {}
    for name in PLACE:
        given = getattr(config.pricing, name, None)
        told = [labels.get(key) for key in _LABELS.get(name, ())]
        told += [environment.get(key) for key in _VARIABLES[name]]
        found[name] = given or next((value for value in told if value), None)
    option = found["purchase_option"]
    if option is not None:
        option = option.lower().replace("_", "-")
        found["purchase_option"] = _WORDS.get(option, option)
    if config.cluster.address == "local" and not any(found.values()):
        found |= THIS_MACHINE
    return Machine(**found)


def price_on(
    book: PriceBook, machine: Machine, takes: Takes, *, at: datetime, output: str = ""
) -> Price:
    """The price of a worker that writes to the URL ``output``; without an amount, and with the
    reason, where the book has none."""
    entry = entry_for(book, machine, at)
    share = entry if isinstance(entry, str) else share_of(entry, takes)
    amount = entry if isinstance(entry, str) else worker_share(entry, takes)
    known = asdict(machine) | (
        {}
        if isinstance(entry, str)
        else {name: value for name, value in asdict(entry).items() if name in PLACE and value}
    )
    return Price(
        nano_per_hour=None if isinstance(amount, str) else amount,
        currency=book.currency,
        version=book.version,
        digest=book.digest,
        provider=known["provider"],
        region=known["region"],
        instance_type=known["instance_type"],
        purchase_option=known["purchase_option"],
        storage=storage_for(book, output),
        share="1" if isinstance(share, str) else str(share),
        unpriced=amount if isinstance(amount, str) else "",
    )


def entry_for(book: PriceBook, machine: Machine, at: datetime) -> InstancePrice | str:
    """The one entry that holds, or why there is none."""
    why = not_in_force(book, at)
    if why:
        return why
    best = best_entries(book, machine)
    if len(best) == 1:
        return best[0]
    many = f"{len(best)} entries" if best else "no entry"
    known = f"prices {book.version} have {many} for a node of which is known: {machine}"
    return f"{known}{_hint(book, machine)}"


def best_entries(book: PriceBook, machine: Machine) -> list[InstancePrice]:
    """Those that hold for a machine and name the most of it; with several none of them does."""
    found = [entry for entry in book.instances if _holds(entry, machine)]
    sharpest = max((_named(entry) for entry in found), default=0)
    return [entry for entry in found if _named(entry) == sharpest]


def _hint(book: PriceBook, machine: Machine) -> str:
    """What would help: another type or book where this one is not in the book, else what is not
    known of the machine."""
    types = sorted({entry.instance_type for entry in book.instances if entry.instance_type})
    named = all(entry.instance_type for entry in book.instances)
    if named and machine.instance_type is not None and machine.instance_type not in types:
        few = ", ".join(types[:_FEW]) + (", …" if len(types) > _FEW else "")
        return f"; the book has the instance types {few or '(none)'}; pricing.book=… takes another"
    near = min(
        filter(None, (_missing(entry, machine) for entry in book.instances)), key=len, default={}
    )
    if near and not best_entries(book, machine):
        keys = " ".join(f"pricing.{name}={value}" for name, value in near.items())
        return f"; an entry of the book asks for {keys}: give that where it is so"
    lacking = [name for name in PLACE if name != "zone" and getattr(machine, name) is None]
    return f"; pricing.{lacking[0]}=… would tell more" if lacking else ""


def _missing(entry: InstancePrice, machine: Machine) -> dict[str, str]:
    """What an entry of the machine's type names that is not known of it and may be given; nothing
    where it names anything else than what is known."""
    found: dict[str, str] = {}
    if machine.instance_type is None:
        return found
    for name in PLACE:
        wanted, known = getattr(entry, name), getattr(machine, name)
        if wanted in (None, known) or (name == "provider" and known is None):
            continue
        if known is not None or name == "zone":
            return {}
        found[name] = wanted
    return found


def not_in_force(book: PriceBook, at: datetime) -> str:
    """Why none of a book's prices holds at a time; "" while they do."""
    today = at.date()
    if book.effective_from is not None and today < book.effective_from:
        return f"prices {book.version} hold only from {book.effective_from} on"
    if book.effective_until is not None and today >= book.effective_until:
        return f"prices {book.version} ended on {book.effective_until}"
    return ""


def storage_for(book: PriceBook, output: str) -> StoragePrice | None:
    """The entry with the longest beginning of the URL."""
    found = [entry for entry in book.storage if output.startswith(entry.url)]
    return max(found, key=lambda entry: len(entry.url), default=None)


def _holds(entry: InstancePrice, machine: Machine) -> bool:
    """Whether all that the entry names is known of the machine. Only the provider may be unknown:
    names of instance types tell it."""
    return all(
        getattr(entry, name) in (None, getattr(machine, name))
        or (name == "provider" and machine.provider is None and entry.instance_type is not None)
        for name in PLACE
    )


def _named(entry: InstancePrice) -> int:
    return sum(getattr(entry, name) is not None for name in PLACE)


def worker_share(entry: InstancePrice, takes: Takes) -> int | str:
    """What of the machine's price the worker pays, to the nearest unit, or why it is not known."""
    share = share_of(entry, takes)
    return share if isinstance(share, str) else _rounded(entry.nano_per_hour * share)


def share_of(entry: InstancePrice, takes: Takes) -> Fraction | str:
    """The part of the machine that the worker pays, or why that is not known: a worker with a GPU
    pays for its part of the GPUs, another one for its part of the CPUs."""
    gpus, vcpus = entry.gpus, entry.vcpus
    if entry.shared:
        gpus, vcpus = takes.node_gpus, takes.node_cpus
    if not gpus and not vcpus:
        return Fraction(1)
    has, of = (takes.gpus, gpus) if takes.gpus else (takes.threads, vcpus)
    if not of:
        with_or_without, what = ("with", "gpus") if takes.gpus else ("without", "vcpus")
        return (
            f"a worker {with_or_without} a GPU on {entry.instance_type or 'any machine'}: the "
            f"price book says no {what} of it, so that the worker's share is not known"
        )
    return min(Fraction(str(has)) / Fraction(str(of)), Fraction(1))


def _rounded(amount: Fraction) -> int:
    return int(amount + Fraction(1, 2))
