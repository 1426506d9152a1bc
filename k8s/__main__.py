"""``make k8s``: render every overlay and example, check them, and say what was checked."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from conf.errors import ConfigError
from k8s.lint.bundle import Bundle, Finding, external
from k8s.lint.checks import RULES, SCHEMAS, check
from k8s.lint.core_schemas import VERSIONS
from k8s.lint.crd_schemas import rule_count
from k8s.lint.render import ROOT, overlays, render

MONITORING = "monitoring"
"""Beside the overlays: no pods, so that nothing but schemas holds for it."""


def main(arguments: Sequence[str] = ()) -> int:
    """Returns the exit status: 1 where a rule is broken, 2 where nothing could be rendered."""
    parser = argparse.ArgumentParser(
        prog="python -m k8s",
        description="Render overlays with Kustomize and check them, without a cluster.",
    )
    parser.add_argument(
        "overlays", nargs="*", metavar="OVERLAY", help="such as overlays/job; all of them without"
    )
    asked = parser.parse_args(arguments).overlays
    known = (*overlays(), MONITORING)
    unknown = [name for name in asked if name not in known]
    if unknown:
        parser.error(f"there is no overlay {unknown[0]}; expected some of {', '.join(known)}")
    console = Console()
    table = Table("overlay", "objects", "pods", "rules broken", box=None)
    broken: list[tuple[str, Finding]] = []
    try:
        for name in asked or known:
            bundle = Bundle(name=name, manifests=render(ROOT / name), external=external())
            found = check(bundle, SCHEMAS if name == MONITORING else RULES)
            broken += [(name, one) for one in found]
            pods = sum(1 for _ in bundle.pods())
            table.add_row(name, str(len(bundle.manifests)), str(pods), str(len(found)))
    except ConfigError as error:
        print(f"k8s: {error}", file=sys.stderr)
        return 2
    console.print(table)
    for name, one in broken:
        print(f"{name}: {one}")
    print(
        f"checked by {len(RULES)} rules ({', '.join(RULES)}); the schemas of the CRDs with "
        f"{rule_count()} CEL rules, those of Kubernetes "
        f"{' and '.join(VERSIONS)} for the rest"
    )
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
