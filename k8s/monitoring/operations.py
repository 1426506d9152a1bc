"""The dashboard for those who keep runs going: progress, workers, engine, store, machines."""

from __future__ import annotations

from k8s.monitoring.grafana import Dashboard, Panel, Query, Row
from k8s.monitoring.queries import CHOSEN, VARIABLES, increase, of_jobs, rate, total, workers_gauge

RAY_SERIES = (
    "ray_node_cpu_utilization",
    "ray_node_mem_used",
    "ray_node_mem_total",
    "ray_node_gpus_utilization",
)
"""Ray's own series that this dashboard draws; the last one only where there are GPUs."""
_DONE = 'state=~"committed|quarantined"'
_PENDING = 'state="pending"'
_QUARANTINED = 'state="quarantined"'
_RUNNING = 'phase="running"'
_QUANTILES = ((0.5, "half"), (0.95, "95 %"), (0.99, "99 %"))

_NOW = Row(
    title="Now",
    panels=(
        Panel(
            title="Done",
            about="Share of all rows that are committed or quarantined.",
            kind="gauge",
            unit="percentunit",
            most=1,
            width=4,
            height=5,
            queries=(Query(expr=f"{total('rows', where=_DONE)} / {total('rows')}"),),
        ),
        Panel(
            title="Rows left",
            about="Rows that are pending.",
            kind="stat",
            width=4,
            height=5,
            queries=(Query(expr=total("rows", where=_PENDING)),),
        ),
        Panel(
            title="Time left",
            about="Pending rows at the pace of the last half hour; nothing while there is none.",
            kind="stat",
            unit="s",
            width=4,
            height=5,
            queries=(
                Query(
                    expr=f"{total('rows', where=_PENDING)} / "
                    f"(sum (delta(ray_imagemill_rows{{{CHOSEN}, {_DONE}}}[30m])) / 1800 > 0)"
                ),
            ),
        ),
        Panel(
            title="Images a second",
            about="Images that workers finish.",
            kind="stat",
            width=4,
            height=5,
            queries=(Query(expr=rate("images_made_total")),),
        ),
        Panel(
            title="Workers at work",
            about="Workers that are in the phase 'running'.",
            kind="stat",
            width=4,
            height=5,
            queries=(Query(expr=total("workers", where=_RUNNING)),),
        ),
        Panel(
            title="Devices in use",
            about="Share of the workers' time in which their devices work.",
            kind="gauge",
            unit="percentunit",
            most=1,
            width=4,
            height=5,
            queries=(
                Query(expr=f"{rate('device_busy_seconds_total')} / {rate('worker_seconds_total')}"),
            ),
        ),
    ),
)
_PROGRESS = Row(
    title="Progress",
    panels=(
        Panel(
            title="Rows",
            about="Every row is in exactly one state.",
            stacked=True,
            queries=(Query(expr=total("rows", "state"), legend="{{state}}"),),
        ),
        Panel(
            title="Images a second",
            about="Finished by workers, and counting: what stays between them is lost or not "
            "committed yet.",
            queries=(
                Query(expr=rate("images_made_total"), legend="made"),
                Query(
                    expr=f"sum (deriv(ray_imagemill_images{{{CHOSEN}}}[10m]))",
                    legend="counting",
                ),
            ),
        ),
        Panel(
            title="Commits a minute",
            about="Commits that landed, by job.",
            queries=(
                Query(expr=f"60 * {rate('commits_total', 'job_name')}", legend="{{job_name}}"),
            ),
        ),
        Panel(
            title="Shards",
            about="Shards of the runs: waiting, leased to a worker, sealed.",
            stacked=True,
            queries=(Query(expr=total("shards", "state"), legend="{{state}}"),),
        ),
        Panel(
            title="Quarantined rows",
            about="Share of the rows that are done with, and what job.max_quarantined allows.",
            unit="percentunit",
            width=16,
            queries=(
                Query(
                    expr=f"{of_jobs('rows', where=_QUARANTINED)} / on (job_name, project) "
                    f"sum by (job_name, project) ({of_jobs('rows', 'state', where=_DONE)})",
                    legend="{{job_name}}",
                ),
                Query(
                    expr=of_jobs("quarantine_limit_ratio"), legend="{{job_name}}: what is allowed"
                ),
            ),
        ),
    ),
)
_WORKERS = Row(
    title="Workers",
    panels=(
        Panel(
            title="Workers",
            about="Workers by what they do.",
            stacked=True,
            width=12,
            queries=(Query(expr=total("workers", "phase"), legend="{{phase}}"),),
        ),
        Panel(
            title="Wanted and there",
            about="Workers that the runs want, those that are there, and those that wait for an "
            "autoscaler to add their machine.",
            width=12,
            queries=(
                Query(expr=total("workers_wanted"), legend="wanted"),
                Query(expr=total("workers"), legend="there"),
                Query(expr=total("workers_waiting"), legend="waiting for a machine"),
            ),
        ),
        Panel(
            title="Lost workers",
            about="Workers that died, hung, fell silent, or stopped for the store, in 15 minutes.",
            width=12,
            queries=(
                Query(expr=increase("workers_lost_total", "how", over="15m"), legend="{{how}}"),
            ),
        ),
        Panel(
            title="Least used devices",
            about="The ten nodes whose devices wait most.",
            unit="percentunit",
            most=1,
            width=12,
            queries=(
                Query(
                    expr=f"bottomk(10, {rate('device_busy_seconds_total', 'NodeAddress')} / "
                    f"{rate('worker_seconds_total', 'NodeAddress')})",
                    legend="{{NodeAddress}}",
                ),
            ),
        ),
    ),
)
_ENGINE = Row(
    title="Engine",
    panels=(
        Panel(
            title="Batch fill",
            about="Share of a step's slots that held a row.",
            unit="percentunit",
            most=1,
            queries=(
                Query(
                    expr=f"{rate('batch_rows_total', 'job_name')} / "
                    f"{rate('batch_slots_total', 'job_name')}",
                    legend="{{job_name}}",
                ),
            ),
        ),
        Panel(
            title="Time of a step",
            about="Device time a step of a whole batch, with conditioning and decoding.",
            unit="s",
            queries=(
                Query(
                    expr=f"{rate('device_busy_seconds_total', 'job_name')} / "
                    f"{rate('ticks_total', 'job_name')}",
                    legend="{{job_name}}",
                ),
            ),
        ),
        Panel(
            title="Queues",
            about="What waits in all workers: requests for the engine, rows in it, images for "
            "their upload and for their commit.",
            queries=(Query(expr=workers_gauge("queue_depth", "queue"), legend="{{queue}}"),),
        ),
    ),
)
_STORE = Row(
    title="Store",
    panels=(
        Panel(
            title="Time of a write",
            about="How long new objects take to land, tries included.",
            unit="s",
            queries=tuple(
                Query(
                    expr=f"histogram_quantile({share:g}, {rate('store_put_seconds_bucket', 'le')})",
                    legend=word,
                )
                for share, word in _QUANTILES
            ),
        ),
        Panel(
            title="Requests a second",
            about="New objects, and requests to a remote store as it charges them.",
            queries=(
                Query(expr=rate("store_put_seconds_count"), legend="objects written"),
                Query(expr=rate("store_requests_total", "kind"), legend="charged: {{kind}}"),
            ),
        ),
        Panel(
            title="Retries a second",
            about="Tries that failed and were made again, by job.",
            queries=(Query(expr=rate("store_retries_total", "job_name"), legend="{{job_name}}"),),
        ),
    ),
)
_MACHINES = Row(
    title="Machines (Ray's own metrics, of all that runs on them)",
    panels=(
        Panel(
            title="CPUs",
            about="Use of each node's CPUs.",
            unit="percent",
            most=100,
            queries=(Query(expr="max by (ip) (ray_node_cpu_utilization)", legend="{{ip}}"),),
        ),
        Panel(
            title="Memory",
            about="Share of each node's memory that is used.",
            unit="percentunit",
            most=1,
            queries=(
                Query(
                    expr="max by (ip) (ray_node_mem_used) / max by (ip) (ray_node_mem_total)",
                    legend="{{ip}}",
                ),
            ),
        ),
        Panel(
            title="GPUs",
            about="Use of each GPU as its driver tells it.",
            unit="percent",
            most=100,
            queries=(
                Query(
                    expr="max by (ip, GpuIndex) (ray_node_gpus_utilization)",
                    legend="{{ip}} {{GpuIndex}}",
                ),
            ),
        ),
    ),
)
OPERATIONS = Dashboard(
    uid="imagemill-operations",
    title="ImageMill: operations",
    about="How far runs are, what their workers do, and what holds them up.",
    variables=VARIABLES,
    rows=(_NOW, _PROGRESS, _WORKERS, _ENGINE, _STORE, _MACHINES),
)
