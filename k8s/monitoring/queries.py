"""Pieces of PromQL that both dashboards say.

The values of a run come from its coordinator, one process; where another takes its place both are
seen for a moment, so gauges are taken by ``max`` over the processes and then added up over jobs.
"""

from __future__ import annotations

from k8s.monitoring.grafana import Variable

CHOSEN = 'project=~"$project", job_name=~"$job_name"'
DONE = 'state=~"committed|quarantined"'
PENDING = 'state="pending"'
VARIABLES = (
    Variable(name="project", label="Project", values="label_values(ray_imagemill_rows, project)"),
    Variable(
        name="job_name",
        label="Job",
        values='label_values(ray_imagemill_rows{project=~"$project"}, job_name)',
    ),
)


def of_jobs(name: str, *also: str, where: str = "") -> str:
    """A gauge of runs by job, project and ``also``: one value each."""
    by = ", ".join(("job_name", "project", *also))
    return f"max by ({by}) (ray_imagemill_{name}{{{_and(where)}}})"


def total(name: str, *by: str, where: str = "") -> str:
    """A gauge of runs, added up over jobs."""
    return f"sum{_by(by)} ({of_jobs(name, *by, where=where)})"


def rate(name: str, *by: str, where: str = "", over: str = "$__rate_interval") -> str:
    """A counter's growth a second, added up."""
    return f"sum{_by(by)} (rate(ray_imagemill_{name}{{{_and(where)}}}[{over}]))"


def increase(name: str, *by: str, where: str = "", over: str = "$__range") -> str:
    """A counter's growth, added up."""
    return f"sum{_by(by)} (increase(ray_imagemill_{name}{{{_and(where)}}}[{over}]))"


def workers_gauge(name: str, *by: str) -> str:
    """A gauge of workers, added up."""
    return f"sum{_by(by)} (ray_imagemill_{name}{{{CHOSEN}}})"


def _and(where: str) -> str:
    return f"{CHOSEN}, {where}" if where else CHOSEN


def _by(labels: tuple[str, ...]) -> str:
    return f" by ({', '.join(labels)})" if labels else ""
