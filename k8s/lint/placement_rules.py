"""What the ledger will believe of a worker's machine, and whether it is true and has a price."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

import yaml

from cluster.pricing import entry_for, machine_of
from conf.errors import ConfigError
from conf.price_book import PriceBook, book_of, parse_book
from conf.schema import RunConfig
from k8s.lint.bundle import Bundle, Found, Rule
from k8s.lint.manifest import Body, Pod, within
from k8s.lint.quantity import quantity
from k8s.lint.run_line import run_config

_TYPE = "node.kubernetes.io/instance-type"
_MARKET = "ray.io/market-type"
_SAME = {
    _TYPE: (_TYPE,),
    "ray.io/availability-region": ("topology.kubernetes.io/region",),
    "ray.io/availability-zone": ("topology.kubernetes.io/zone",),
}
"""Labels of Ray, and the node labels that must choose the same."""
_MARKETS = {
    "karpenter.sh/capacity-type": {"on-demand": "on-demand", "spot": "spot"},
    "eks.amazonaws.com/capacityType": {"ON_DEMAND": "on-demand", "SPOT": "spot"},
    "cloud.google.com/gke-provisioning": {"standard": "on-demand", "spot": "spot"},
    "cloud.google.com/gke-spot": {"true": "spot"},
    "kubernetes.azure.com/scalesetpriority": {"spot": "spot"},
}
"""Node labels by which the clouds tell how a machine is paid, in our words."""


def true_labels(bundle: Bundle) -> Iterator[Found]:
    """A label that the node selector does not make true: the ledger would believe it."""
    for pod in bundle.pods("worker"):
        chosen = _chosen(pod)
        for label, value in pod.group.get("labels", {}).items():
            same = _SAME.get(label, ())
            if same and not any(chosen.get(key) == value for key in same):
                yield Found(
                    str(pod),
                    f"label {label}={value}, and no node selector {' or '.join(same)}={value}",
                )
            if label == _MARKET and value not in _markets(pod):
                yield Found(
                    str(pod),
                    f"label {label}={value}, and no node selector or affinity chooses such",
                )


def told_machines(bundle: Bundle) -> Iterator[Found]:
    """GPU workers of which nobody says on what machine they are."""
    for pod in bundle.pods("worker"):
        gpus = within(pod.main, "resources", "limits", "nvidia.com/gpu", default=0)
        for label in (_TYPE, _MARKET):
            if quantity(gpus) and label not in pod.group.get("labels", {}):
                yield Found(str(pod), f"has GPUs and no label {label}: its cost would be unknown")


def priced(bundle: Bundle) -> Iterator[Found]:
    """A worker that the run's price book has no price for."""
    for pod in bundle.pods("worker"):
        config = run_config(bundle, pod.owner)
        if config is None:
            continue
        try:
            book = _book(bundle, pod, config)
        except ConfigError as error:
            yield Found(str(pod), f"the run's price book: {error}")
            continue
        machine = machine_of(config, pod.group.get("labels", {}), _environment(bundle, pod))
        entry = entry_for(book, machine, datetime.now(UTC))
        if isinstance(entry, str):
            yield Found(str(pod), f"its cost would be unknown: {entry}")


def _book(bundle: Bundle, pod: Pod, config: RunConfig) -> PriceBook:
    """The run's price book: one that is shipped, or a file of a ConfigMap that the head mounts.

    Raises:
        ConfigError: it is not there, or none.
    """
    path = config.pricing.book
    if not path.startswith("/"):
        return book_of(config.pricing)
    head = next(one for one in bundle.pods("head") if one.owner is pod.owner)
    for mount in head.main.get("volumeMounts", ()):
        folder, _, file = path.rpartition("/")
        if mount["mountPath"] != folder:
            continue
        volume = next(one for one in head.spec["volumes"] if one["name"] == mount["name"])
        wanted = within(volume, "configMap", "name")
        for settings in bundle.of_kind("ConfigMap"):
            data: Mapping[str, str] = settings.body.get("data", {})
            if settings.name == wanted and file in data:
                return parse_book(yaml.safe_load(data[file]), f"{settings} {file}")
    raise ConfigError(f"pricing.book={path} is no file that the head mounts of a ConfigMap")


def _environment(bundle: Bundle, pod: Pod) -> dict[str, str]:
    """The variables of the pod whose values are known here."""
    found: dict[str, str] = {}
    for source in pod.main.get("envFrom", ()):
        for settings in bundle.of_kind("ConfigMap"):
            if settings.name == within(source, "configMapRef", "name"):
                found |= settings.body.get("data", {})
    found |= {one["name"]: one["value"] for one in pod.main.get("env", ()) if "value" in one}
    return found


def _chosen(pod: Pod) -> Mapping[str, str]:
    found: Mapping[str, str] = pod.spec.get("nodeSelector", {})
    return found


def _markets(pod: Pod) -> set[str]:
    """How the machines that the pod may get are paid, as far as node labels say."""
    found = set()
    for key, words in _MARKETS.items():
        found.add(words.get(_chosen(pod).get(key, ""), ""))
        for one in _affinity(pod):
            if one.get("key") == key and one.get("operator") == "In":
                found |= {words.get(value, "") for value in one["values"]}
            if one.get("key") == key and one.get("operator") == "NotIn" and "spot" in one["values"]:
                found.add("on-demand")
    return found - {""}


def _affinity(pod: Pod) -> Iterator[Body]:
    """What every node that the pod may get must fulfil, where there is one term of it."""
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    way = ("affinity", "nodeAffinity", required, "nodeSelectorTerms")
    terms = within(pod.spec, *way, default=())
    if len(terms) == 1:
        yield from terms[0].get("matchExpressions", ())


PLACEMENT_RULES: dict[str, Rule] = {
    "label-true": true_labels,
    "label-told": told_machines,
    "worker-priced": priced,
}
