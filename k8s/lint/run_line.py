"""The command line of a RayJob: one plain ``imagemill`` command that our own parsers take."""

from __future__ import annotations

import shlex
from argparse import Namespace
from collections.abc import Iterator
from contextlib import redirect_stderr
from fractions import Fraction
from io import StringIO

from conf.errors import ConfigError
from conf.schema import RunConfig
from jobs.cli import build_parser
from jobs.configure import compose
from jobs.rayjob import SHELL
from jobs.sendable import refuse_secrets
from jobs.triton_export import export_config
from k8s.lint.bundle import Bundle, Found, Rule
from k8s.lint.manifest import Body, Manifest, RayCluster, ray_cluster, within
from k8s.lint.quantity import quantity
from operators.row_defaults import row_defaults

_PROGRAM = "imagemill"


def plain_line(bundle: Bundle) -> Iterator[Found]:
    """A line that a shell on its way would change, or that is none of our commands."""
    for job in bundle.of_kind("RayJob"):
        line = _line(job)
        found = sorted(set(line) & SHELL)
        if found:
            yield Found(
                str(job),
                f"the entrypoint holds {' '.join(map(repr, found))}; expected one plain command: "
                "KubeRay hands it unquoted to a shell",
            )
        elif not line.startswith(f"{_PROGRAM} run "):
            yield Found(str(job), f"the entrypoint is '{line}'; expected '{_PROGRAM} run …'")


def known_options(bundle: Bundle) -> Iterator[Found]:
    """An option or a configuration key that ImageMill does not have, a value that it refuses, or
    one that may be a secret."""
    for job in bundle.of_kind("RayJob"):
        try:
            if _is_ours(job):
                row_defaults(config_of(_line(job)))
                refuse_secrets(_parsed(_line(job)).overrides)
        except ConfigError as error:
            yield Found(str(job), f"the entrypoint is refused: {error}")


def known_commands(bundle: Bundle) -> Iterator[Found]:
    """A container that calls ImageMill with what it does not take."""
    for pod in bundle.pods():
        for container in pod.containers:
            words = [*container.get("command", ()), *container.get("args", ())]
            if words[:1] != [_PROGRAM]:
                continue
            try:
                given = _parsed(shlex.join(words))
                if "repository" in given:
                    # any model will do: a hub is not asked here
                    export_config("shapes", given.keys)
            except ConfigError as error:
                yield Found(f"{pod}: container {container.get('name')}", f"is refused: {error}")


def sound_run(bundle: Bundle) -> Iterator[Found]:
    """A run that would start a Ray of its own, could not begin again, or asks for too much."""
    for job in bundle.of_kind("RayJob"):
        config = run_config(bundle, job)
        if config is None:
            continue
        if config.cluster.address != "auto":
            yield Found(
                str(job),
                f"cluster.address is {config.cluster.address}; expected auto: the driver runs in "
                "the cluster",
            )
        if job.spec.get("backoffLimit", 0) > 0 and not _parsed(_line(job)).resume:
            yield Found(
                str(job), "backoffLimit starts the line again, which needs imagemill run --resume"
            )
        cluster = ray_cluster(job)
        if cluster is not None:
            yield from _fitting(job, cluster, config)


def run_config(bundle: Bundle, owner: Manifest) -> RunConfig | None:
    """What a RayJob's line asks for; None for other objects, and for lines that are refused."""
    if owner.kind != "RayJob" or not _is_ours(owner):
        return None
    try:
        return config_of(_line(owner))
    except ConfigError:
        return None


def config_of(line: str) -> RunConfig:
    """The configuration that a line of ``imagemill run`` means.

    Raises:
        ConfigError: an unknown option or key, or a wrong value.
    """
    return compose(_parsed(line).overrides)


def _parsed(line: str) -> Namespace:
    """The words of a line, by the command line's own parser."""
    refused = StringIO()
    try:
        with redirect_stderr(refused):
            return build_parser().parse_args(shlex.split(line)[1:])
    except SystemExit as error:
        reason = refused.getvalue().strip().rpartition("error: ")[2]
        raise ConfigError(reason) from error


def _fitting(job: Manifest, cluster: RayCluster, config: RunConfig) -> Iterator[Found]:
    """More workers than the groups can ever hold, GPUs that nobody asked for, or an autoscaler that
    the run does not know of, or expects in vain."""
    if cluster.autoscaled != config.cluster.autoscaled:
        there = "has" if cluster.autoscaled else "lacks"
        yield Found(
            str(job),
            f"the cluster {there} an autoscaler (enableInTreeAutoscaling), and the run is told "
            f"cluster.autoscaled={str(config.cluster.autoscaled).lower()}",
        )
    wanted = config.cluster.workers or config.cluster.max_workers or config.cluster.min_workers
    gpus = sum(_gpus(group) for group in cluster.groups)
    each = config.cluster.gpus_per_worker
    if gpus and not each:
        yield Found(
            str(job),
            "cluster.gpus_per_worker is not set; before the first GPU has joined, a run cannot "
            "know that there will be any",
        )
    holds = sum(_holds(group, each or 0) for group in cluster.groups)
    if wanted > holds:
        yield Found(str(job), f"the run asks for {wanted} workers; the groups hold {holds} at most")


def _holds(group: Body, gpus_per_worker: float) -> int:
    """How many workers a group can hold."""
    pods = group.get("maxReplicas", group.get("replicas", 1)) * group.get("numOfHosts", 1)
    by_cpu = int(_limit(group, "cpu"))
    by_gpu = int(_gpus(group) / Fraction(gpus_per_worker)) if gpus_per_worker else by_cpu
    return int(pods * min(by_cpu, by_gpu))


def _gpus(group: Body) -> Fraction:
    return _limit(group, "nvidia.com/gpu")


def _limit(group: Body, name: str) -> Fraction:
    containers = within(group, "template", "spec", "containers", default=())
    given = within(containers[0], "resources", "limits", name, default=0) if containers else 0
    return quantity(given)


def _line(job: Manifest) -> str:
    return str(job.spec.get("entrypoint", "")).strip()


def _is_ours(job: Manifest) -> bool:
    return _line(job).startswith(f"{_PROGRAM} run ")


RUN_RULES: dict[str, Rule] = {
    "run-plain": plain_line,
    "run-options": known_options,
    "run-sound": sound_run,
    "command-options": known_commands,
}
