"""Who may reach a pod, what may take it away, and how it leaves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import redirect_stderr
from io import StringIO

from k8s.lint.bundle import Bundle, Found, Rule
from k8s.lint.manifest import Body, Pod, ray_cluster, within
from k8s.lint.reference_rules import matches
from k8s.lint.run_line import run_config

ENDING_S = 10.0
"""What a worker's pod needs beyond the notice: the hook's start, and Ray's own end."""
_HOOK = ["python", "-m", "cluster.leave"]
_DASHBOARD = 8265
_DNS = 53
_TLS = 443
_API = 6443
"""Where Kubernetes' API answers behind its service, beside 443."""
_METRICS = "metrics"
_MANY = 100
"""More heads than a namespace ever has."""
_UNTOUCHED = {
    "karpenter.sh/do-not-disrupt": "true",
    "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
}
"""What keeps a pod where it is when Karpenter or the cluster autoscaler tidies up nodes."""


def closed_by_default(bundle: Bundle) -> Iterator[Found]:
    """No policy that closes both ways for every pod."""
    for policy in bundle.of_kind("NetworkPolicy"):
        spec = policy.spec
        both = set(spec.get("policyTypes", ())) == {"Ingress", "Egress"}
        if spec.get("podSelector") == {} and both and not spec.get("ingress", spec.get("egress")):
            return
    yield Found(bundle.name, "no NetworkPolicy denies ingress and egress to all pods")


def ray_reachable(bundle: Bundle) -> Iterator[Found]:
    """Ray pods that cannot reach each other, DNS, a submitter or the operator."""
    for pod in bundle.pods("head", "worker"):
        if not _egress_port(bundle, pod, _DNS):
            yield Found(str(pod), "no NetworkPolicy lets it ask DNS")
        for other in bundle.pods("head", "worker"):
            same = pod.owner is other.owner
            if same and not (_opens(bundle, pod, other, "ingress", "from")):
                yield Found(str(pod), f"no NetworkPolicy lets {other} in")
            if same and not (_opens(bundle, pod, other, "egress", "to")):
                yield Found(str(pod), f"no NetworkPolicy lets it reach {other}")
    for head in bundle.pods("head"):
        peers = list(_ingress_peers(bundle, head, _DASHBOARD))
        if not any("namespaceSelector" in peer for peer in peers):
            yield Found(str(head), "no NetworkPolicy lets KubeRay's operator in at 8265")
        for submitter in bundle.pods("submitter"):
            chosen = [p["podSelector"] for p in peers if set(p) == {"podSelector"}]
            if not any(matches(selector, submitter.labels) for selector in chosen):
                yield Found(str(head), f"no NetworkPolicy lets {submitter} in at 8265")


def outside_reachable(bundle: Bundle) -> Iterator[Found]:
    """Ray pods without a way to stores and hub, an autoscaler without one to Kubernetes, or metrics
    that nobody may fetch."""
    for pod in bundle.pods("head", "worker"):
        if not _egress_port(bundle, pod, _TLS):
            yield Found(str(pod), f"no NetworkPolicy lets it reach stores at {_TLS}")
        cluster = ray_cluster(pod.owner)
        autoscaler = pod.role == "head" and cluster is not None and cluster.autoscaled
        if autoscaler and not _egress_port(bundle, pod, _API):
            yield Found(
                str(pod),
                f"no NetworkPolicy lets its autoscaler reach Kubernetes at {_TLS} and {_API}",
            )
        ports = [one for one in pod.main.get("ports", ()) if one.get("name") == _METRICS]
        if not ports:
            yield Found(str(pod), f"has no port named {_METRICS}, by which it is scraped")
        for port in ports:
            if not list(_ingress_peers(bundle, pod, port["containerPort"])):
                yield Found(str(pod), "no NetworkPolicy lets Prometheus in at its metrics")


def disruption_budgets(bundle: Bundle) -> Iterator[Found]:
    """A Ray pod that a drained node may take at once, or a budget that Kubernetes cannot count."""
    budgets = bundle.of_kind("PodDisruptionBudget")
    for pod in bundle.pods("head", "worker"):
        covering = [one for one in budgets if matches(one.spec.get("selector", {}), pod.labels)]
        if not covering:
            yield Found(str(pod), "no PodDisruptionBudget covers it")
        for budget in covering:
            if not isinstance(budget.spec.get("minAvailable"), int):
                yield Found(
                    str(budget),
                    "expected a whole minAvailable: a RayCluster has no scale subresource, so that "
                    "nothing else can be counted",
                )
            elif pod.role == "head" and budget.spec["minAvailable"] < _MANY:
                yield Found(
                    str(budget),
                    f"minAvailable is {budget.spec['minAvailable']}; expected {_MANY} at least: of "
                    "several jobs' heads in one namespace none may be evicted",
                )


def undisturbed_heads(bundle: Bundle) -> Iterator[Found]:
    """A head that is moved, and its run ended, so that a node is used better."""
    for head in bundle.pods("head"):
        given = within(head.template, "metadata", "annotations", default={})
        for name, value in _UNTOUCHED.items():
            if given.get(name) != value:
                yield Found(str(head), f'expected the annotation {name}: "{value}"')


def spread(bundle: Bundle) -> Iterator[Found]:
    """Workers that may all stand in one zone, or a spread that counts other pods."""
    for pod in bundle.pods("worker"):
        constraints = pod.spec.get("topologySpreadConstraints", ())
        if not any(one.get("topologyKey") == "topology.kubernetes.io/zone" for one in constraints):
            yield Found(
                str(pod), "expected topologySpreadConstraints over topology.kubernetes.io/zone"
            )
        for one in constraints:
            if not matches(one.get("labelSelector", {}), pod.labels):
                yield Found(
                    str(pod), "the labelSelector of its spread does not match its own labels"
                )


def leaving(bundle: Bundle) -> Iterator[Found]:
    """A worker that is not told to leave, or is killed before its notice is over."""
    for pod in bundle.pods("worker"):
        command = within(pod.main, "lifecycle", "preStop", "exec", "command", default=[])
        notice_s = hook_notice_s(command)
        if notice_s is None:
            yield Found(
                str(pod),
                f"expected the preStop command {' '.join(_HOOK)} --notice-s=…; found "
                f"'{' '.join(map(str, command))}'",
            )
            continue
        grace_s = pod.spec.get("terminationGracePeriodSeconds", 30)
        if grace_s < notice_s + ENDING_S:
            yield Found(
                str(pod),
                f"terminationGracePeriodSeconds is {grace_s}; expected the hook's notice of "
                f"{notice_s:g} s and {ENDING_S:g} s more",
            )
        config = run_config(bundle, pod.owner)
        if config is not None and config.cluster.preemption_notice_s != notice_s:
            yield Found(
                str(pod),
                f"its hook gives {notice_s:g} s of notice, and the run's "
                f"cluster.preemption_notice_s is {config.cluster.preemption_notice_s:g}",
            )


def hook_notice_s(command: list[str]) -> float | None:
    """The notice that a hook gives, by the hook's own parser; None for any other command."""
    # late: it imports Ray
    from cluster.leave import build_parser

    if command[: len(_HOOK)] != _HOOK:
        return None
    try:
        with redirect_stderr(StringIO()):
            notice_s: float = build_parser().parse_args(command[len(_HOOK) :]).notice_s
    except SystemExit:
        return None
    return notice_s


def _opens(bundle: Bundle, pod: Pod, other: Pod, way: str, end: str) -> bool:
    """Whether a policy of a pod opens one way to another pod, for all ports."""
    return any(
        "ports" not in rule
        and any(matches(peer.get("podSelector", {}), other.labels) for peer in rule.get(end, ()))
        for rule in _rules(bundle, pod, way)
    )


def _egress_port(bundle: Bundle, pod: Pod, port: int) -> bool:
    return any(
        one.get("port") == port
        for rule in _rules(bundle, pod, "egress")
        for one in rule.get("ports", ())
    )


def _ingress_peers(bundle: Bundle, pod: Pod, port: int) -> Iterator[Body]:
    for rule in _rules(bundle, pod, "ingress"):
        if any(one.get("port") == port for one in rule.get("ports", ())):
            yield from rule.get("from", ())


def _rules(bundle: Bundle, pod: Pod, way: str) -> Iterator[Body]:
    """The rules of every policy that selects the pod, one way."""
    for policy in bundle.of_kind("NetworkPolicy"):
        if matches(policy.spec.get("podSelector", {}), pod.labels):
            yield from policy.spec.get(way, ())


AVAILABILITY_RULES: dict[str, Rule] = {
    "network-closed": closed_by_default,
    "network-ray": ray_reachable,
    "network-outside": outside_reachable,
    "disruption-budget": disruption_budgets,
    "head-undisturbed": undisturbed_heads,
    "spread": spread,
    "leaving": leaving,
}
