"""``make chaos``: the whole matrix, or the faults that are named; exit status 1 if one is not
survived."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import time
from collections.abc import Sequence

from tests.chaos.fault import FAULTS, Fault
from tests.chaos.faults import load_all
from tests.chaos.matrix import Outcome, perform_all
from tests.chaos.stage import stage

_HEAD = (
    "fault",
    "rows",
    "lost",
    "doubled",
    "made again",
    "wasted s",
    "seconds",
    "how the runs ended",
)
_LINE = "{:<44} {:>5} {:>5} {:>8} {:>11} {:>9} {:>8}  {}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the faults and print a line for each."""
    load_all()
    asked = _parser().parse_args(arguments)
    unknown = sorted(set(asked.names) - set(FAULTS))
    if unknown:
        print(f"there is no fault named {', '.join(unknown)}; see --list", file=sys.stderr)
        return 2
    chosen = [FAULTS[name] for name in asked.names] or list(FAULTS.values())
    if asked.list:
        for item in chosen:
            print(f"{item.name:<44} {item.sentence}")
        return 0
    logging.getLogger("ray").setLevel(logging.ERROR)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    bad = 0
    for number in range(asked.repeat):
        bad += _round(chosen, asked.seed + number)
    return 1 if bad else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("names", nargs="*", help="faults to cause; all by default")
    parser.add_argument("--list", action="store_true", help="say what each fault is and stop")
    parser.add_argument("--repeat", type=int, default=1, help="how often to run the matrix")
    parser.add_argument("--seed", type=int, default=0, help="of the rows, and of chance in bursts")
    return parser


def _round(faults: Sequence[Fault], seed: int) -> int:
    """One run of the matrix; returns how many faults were not survived."""
    started_s = time.monotonic()
    print(f"{len(faults)} faults, seed {seed}\n{_LINE.format(*_HEAD)}", flush=True)
    outcomes: list[Outcome] = []
    with stage(seed) as shared:
        for outcome in perform_all(faults, shared):
            outcomes.append(outcome)
            print(_line(outcome), flush=True)
    bad = [outcome for outcome in outcomes if outcome.problems]
    print(
        f"{len(outcomes)} jobs, lost {sum(o.lost for o in outcomes)}, "
        f"doubled {sum(o.doubled for o in outcomes)}, {len(bad)} not survived, "
        f"{time.monotonic() - started_s:.0f} s",
        flush=True,
    )
    return len(bad)


def _line(outcome: Outcome) -> str:
    line = _LINE.format(
        outcome.fault,
        outcome.rows,
        outcome.lost,
        outcome.doubled,
        outcome.made_again,
        f"{outcome.wasted_s:.2f}",
        f"{outcome.seconds:.0f}",
        outcome.ended,
    )
    return "\n".join([line, *(f"    {problem}" for problem in outcome.problems)])


if __name__ == "__main__":
    sys.exit(main())
