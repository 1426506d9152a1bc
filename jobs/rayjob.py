"""A RayJob that runs a submission, like one that is there: what GitOps keeps and applies.

Knows the few fields of a RayJob that a run is about; machines, image and rights stay as they are.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Any

import yaml

from conf.errors import ConfigError

SHELL = frozenset("|&;<>()$`\\\"'*?[]#~!{}\n")
"""What a shell takes for its own. KubeRay puts the command unquoted into one shell, which hands it
to a second one."""
_KEPT = (
    "cluster.",
    "storage.",
    "pricing.",
    "pricing=",
    "triton.",
    "engine=triton",
    "job.commit_seconds=",
    "job.commit_images=",
)
"""Where a run is, who works there, what that costs and how much may be lost with it: what the
pattern says of it stays unless it is given."""
_NAME_DIGITS = 6
_LONGEST_NAME = 47
"""KubeRay refuses longer ones."""


def render(
    pattern: str, where: str, *, job_name: str, output: str, overrides: Sequence[str]
) -> str:
    """The YAML documents of ``pattern``, whose one RayJob runs ``overrides`` now.

    Args:
        where: what to call the pattern in messages.
        output: where the job writes, by which its RayJob is told from others of its name.

    Raises:
        ConfigError: it is no YAML, holds no RayJob or several, or a shell would change the command.
    """
    documents = _documents(pattern, where)
    jobs = [one for one in documents if isinstance(one, dict) and one.get("kind") == "RayJob"]
    if len(jobs) != 1:
        raise ConfigError(
            f"{where} holds {len(jobs)} RayJobs; expected one that the new one is to be like, such "
            "as k8s/overlays/job/rayjob.yaml"
        )
    (job,) = jobs
    try:
        before = str(job["spec"]["entrypoint"]).split()
        job["metadata"]["name"] = _name(job_name, output)
        job["spec"]["entrypoint"] = _command(before, overrides)
    except (KeyError, TypeError) as error:
        raise ConfigError(f"the RayJob of {where} has no metadata or no spec.entrypoint") from error
    text: str = yaml.safe_dump_all(documents, sort_keys=False, allow_unicode=True, width=100)
    return text


def _documents(pattern: str, where: str) -> list[Any]:
    try:
        return [one for one in yaml.safe_load_all(pattern) if one is not None]
    except yaml.YAMLError as error:
        raise ConfigError(f"{where} is no YAML: {error}") from error


def _command(before: Sequence[str], overrides: Sequence[str]) -> str:
    """One plain line. A try after a lost head runs it again, so that it has to go on by itself."""
    given = {_key(one) for one in overrides}
    kept = [one for one in before if one.startswith(_KEPT) and _key(one) not in given]
    if not {"engine=triton"} & {*overrides, *kept}:
        kept = [one for one in kept if not one.startswith("triton.")]
    if not {_key(one) for one in kept} | given >= {"cluster.address"}:
        kept.append("cluster.address=auto")
    for one in (*overrides, *kept):
        found = sorted(set(one) & SHELL | {mark for mark in one if mark.isspace()})
        if found:
            raise ConfigError(
                f"{one} holds {' '.join(map(repr, found))}: KubeRay hands the command unquoted to "
                "a shell. Name a folder instead of a pattern; put what needs quotes into the "
                "environment"
            )
    return " ".join(["imagemill", "run", "--resume", *overrides, *kept])


def _key(override: str) -> str:
    key = override.partition("=")[0]
    return "pricing.book" if key == "pricing" else key


def _name(job_name: str, output: str) -> str:
    """A name for Kubernetes, the same for the same job: who applies it again changes nothing.
    Another job has another one, for KubeRay starts nothing anew of a RayJob that is changed."""
    plain = re.sub(r"[^a-z0-9]+", "-", job_name.lower()).strip("-") or "job"
    digest = hashlib.sha256(output.rstrip("/").encode()).hexdigest()[:_NAME_DIGITS]
    return f"imagemill-{plain}"[: _LONGEST_NAME - _NAME_DIGITS - 1].rstrip("-") + f"-{digest}"
