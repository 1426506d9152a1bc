"""``python -m k8s.monitoring`` writes the dashboards; a test fails when the files are stale."""

from __future__ import annotations

import json
from pathlib import Path

from k8s.monitoring.grafana import Dashboard
from k8s.monitoring.money import MONEY
from k8s.monitoring.operations import OPERATIONS

FOLDER = Path(__file__).parent / "dashboards"
DASHBOARDS = (OPERATIONS, MONEY)


def path_of(dashboard: Dashboard) -> Path:
    """Where it is written."""
    return FOLDER / f"{dashboard.uid}.json"


def text_of(dashboard: Dashboard) -> str:
    """The content of its file."""
    return json.dumps(dashboard.to_json(), indent=2) + "\n"


def main() -> None:
    """Write all dashboards."""
    for dashboard in DASHBOARDS:
        path_of(dashboard).write_text(text_of(dashboard))


if __name__ == "__main__":
    main()
