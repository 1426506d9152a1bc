"""The dashboard for those who pay: what is spent, on what, and whether the budget holds.

Amounts of different currencies are never added up: every sum is by currency.
"""

from __future__ import annotations

from k8s.monitoring.grafana import Dashboard, Panel, Query, Row
from k8s.monitoring.panels import amount, amounts, dial, figure, shares
from k8s.monitoring.queries import CHOSEN, DONE, PENDING, VARIABLES, increase, of_jobs, rate, total

_BY_CURRENCY = "{{currency}}"
_BY_JOB = "{{job_name}} ({{currency}})"
_DONE_ROWS = f"sum by (job_name, project) ({of_jobs('rows', 'state', where=DONE)})"
_PENDING_ROWS = of_jobs("rows", where=PENDING)
_SPENT = of_jobs("spent", "currency")

_NOW = Row(
    title="Jobs that run now",
    panels=(
        amount(
            "Spent",
            "By the runs under way; of jobs with a budget also by their earlier runs.",
            Query(expr=total("spent", "currency"), legend=_BY_CURRENCY),
        ),
        amount(
            "At the end",
            "What the jobs will have cost if the pending rows cost what the others did.",
            Query(
                expr=f"sum by (currency) ({_SPENT} * on (job_name, project) group_left () "
                f"(1 + {_PENDING_ROWS} / on (job_name, project) ({_DONE_ROWS} > 0)))",
                legend=_BY_CURRENCY,
            ),
        ),
        amount(
            "An hour costs",
            "What all workers and their requests cost, at the pace of the last five minutes.",
            Query(
                expr=f"3600 * {rate('worker_cost_total', 'currency', over='5m')}",
                legend=_BY_CURRENCY,
            ),
        ),
        amount(
            "1,000 images cost",
            "All that was paid in the time shown, over the images that were made in it.",
            Query(
                expr=f"1000 * {increase('worker_cost_total', 'currency')} "
                f"/ on () group_left () ({increase('images_made_total')} > 0)",
                legend=_BY_CURRENCY,
            ),
        ),
        dial(
            "On images",
            "Share of what was spent in the last hour that went to images which count. The "
            "rest is loading, waiting and work that was lost.",
            Query(
                expr=f"sum by (currency) (delta(ray_imagemill_spent_on_images{{{CHOSEN}}}[1h]))"
                f" / (sum by (currency) (delta(ray_imagemill_spent{{{CHOSEN}}}[1h])) > 0)",
                legend=_BY_CURRENCY,
            ),
        ),
        figure(
            "Paid workers",
            "Worker-hours that are paid in an hour.",
            Query(expr=rate("worker_seconds_total", over="5m")),
            decimals=1,
        ),
    ),
)
_BUDGET = Row(
    title="Budgets",
    panels=(
        shares(
            "Budget used",
            "The used share of the tighter cap, budget.max_cost or budget.max_hours, by job.",
            Query(expr=of_jobs("budget_used_ratio"), legend="{{job_name}}"),
        ),
        amounts(
            "Budget left",
            "What is left of budget.max_cost, by job.",
            Query(expr=of_jobs("budget_left", "currency"), legend=_BY_JOB),
        ),
        Panel(
            title="Left, and still to pay",
            about="What is left of budget.max_cost, and what the pending rows will cost.",
            kind="table",
            unit="none",
            queries=(
                Query(expr=of_jobs("budget_left", "currency"), legend="left"),
                Query(
                    expr=f"{_SPENT} * on (job_name, project) group_left {_PENDING_ROWS} "
                    f"/ on (job_name, project) group_left () ({_DONE_ROWS} > 0)",
                    legend="still to pay",
                ),
            ),
        ),
    ),
)
_SPENDING = Row(
    title="Spending",
    panels=(
        amounts(
            "Spent by job",
            "What the jobs that run have cost so far.",
            Query(expr=_SPENT, legend=_BY_JOB),
        ),
        amounts(
            "An hour costs, by project",
            "What workers and their requests cost an hour.",
            Query(
                expr=f"3600 * {rate('worker_cost_total', 'project', 'currency')}",
                legend="{{project}} ({{currency}})",
            ),
            stacked=True,
        ),
        amounts(
            "Dearest nodes",
            "The ten nodes whose workers cost most an hour.",
            Query(
                expr="topk by (currency) (10, 3600 * "
                f"{rate('worker_cost_total', 'NodeAddress', 'currency')})",
                legend="{{NodeAddress}} ({{currency}})",
            ),
        ),
    ),
)
_LOST = Row(
    title="Paid and not used",
    panels=(
        amounts(
            "Not on images",
            "Spent in an hour on all but images that count: loading, waiting, lost work.",
            Query(
                expr=f"sum by (job_name, currency) (delta(ray_imagemill_spent{{{CHOSEN}}}[1h]))"
                " - sum by (job_name, currency) "
                f"(delta(ray_imagemill_spent_on_images{{{CHOSEN}}}[1h]))",
                legend=_BY_JOB,
            ),
        ),
        Panel(
            title="Images made again",
            about="Images made in an hour that do not count, or not yet.",
            queries=(
                Query(
                    expr=f"{increase('images_made_total', 'job_name', over='1h')} - sum by "
                    f"(job_name) (delta(ray_imagemill_images{{{CHOSEN}}}[1h]))",
                    legend="{{job_name}}",
                ),
            ),
        ),
        Panel(
            title="Requests that the store charges",
            about="In an hour, as stores charge them.",
            queries=(
                Query(expr=f"3600 * {rate('store_requests_total', 'kind')}", legend="{{kind}}"),
            ),
        ),
    ),
)
MONEY = Dashboard(
    uid="imagemill-money",
    title="ImageMill: money",
    about="What jobs cost while they run. What they have cost to the last unit tells "
    "'imagemill cost', from their ledgers.",
    variables=VARIABLES,
    rows=(_NOW, _BUDGET, _SPENDING, _LOST),
    last="24h",
)
