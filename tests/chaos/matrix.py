"""Performs faults one after the other, checks what each left, and prints the table."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from tests.chaos.checker import Verdict, check
from tests.chaos.fault import Fault
from tests.chaos.records import read_records
from tests.chaos.scene import Scene, make_rows
from tests.chaos.stage import Stage
from tests.chaos.traffic import made_again, overwritten
from tests.closing import prove
from tests.small_disk import CannotMount

ROWS = 32
_UNDISTURBED = "undisturbed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a job under one fault. Good only without ``problems``."""

    fault: str
    rows: int
    lost: int
    doubled: int
    made_again: int
    wasted_s: float
    ended: str
    seconds: float
    problems: tuple[str, ...]


def perform_all(faults: Sequence[Fault], stage: Stage) -> Iterable[Outcome]:
    """Every fault's outcome as it comes. The pictures of a job that nobody disturbs come first."""
    undisturbed = Fault(
        name=_UNDISTURBED, sentence="Nothing happens.", cause=lambda s: s.ends(s.run(), 0)
    )
    outcome, verdict = perform(undisturbed, stage, None)
    yield outcome
    pictures = verdict.images if verdict else {}
    for fault in faults:
        yield perform(fault, stage, pictures)[0]


def perform(
    fault: Fault, stage: Stage, pictures: Mapping[str, str] | None
) -> tuple[Outcome, Verdict | None]:
    """Cause the fault, bring the job to its end, and check it.

    Args:
        pictures: sha256 by image id of an undisturbed run; None: there is nothing to compare.
    """
    started_s = time.monotonic()
    outcome = Outcome(
        fault=fault.name,
        rows=ROWS,
        lost=0,
        doubled=0,
        made_again=0,
        wasted_s=0.0,
        ended="",
        seconds=0.0,
        problems=(),
    )
    scene = Scene(fault.name, stage=stage, rows=make_rows(ROWS, stage.seed))
    verdict: Verdict | None = None
    try:
        with scene:
            fault.cause(scene)
            scene.bring_to_end()
            verdict = check(scene.bucket(), scene.rows, outlived=scene.outlived)
            outcome = _judged(outcome, scene, verdict, pictures)
    except CannotMount as reason:
        scene.story.append(f"skipped: {reason}")
    except Exception as error:  # noqa: BLE001 - one fault's failure is a line of the table
        told = traceback.format_exc() if not isinstance(error, AssertionError) else str(error)
        outcome = replace(outcome, problems=(told,))
    took_s = time.monotonic() - started_s
    return replace(outcome, ended=", ".join(scene.story), seconds=took_s), verdict


def _judged(
    outcome: Outcome, scene: Scene, verdict: Verdict, pictures: Mapping[str, str] | None
) -> Outcome:
    problems = [*verdict.problems, *overwritten(scene.traffic())]
    problems += prove(scene.bucket(), scene.cost()).problems
    if verdict.quarantined != scene.wanted_quarantined:
        problems.append(
            f"{verdict.quarantined} rows are quarantined, not {scene.wanted_quarantined}"
        )
    counted = {
        item.key for shard in read_records(scene.bucket()).shards.values() for item in shard.commits
    }
    problems += [f"{key} counts although it came too late" for key in counted & set(scene.fenced)]
    if pictures is not None and scene.same_images:
        changed = [i for i, sha in verdict.images.items() if pictures.get(i, sha) != sha]
        problems += [f"image {i} is not that of an undisturbed run" for i in changed[:3]]
    return replace(
        outcome,
        rows=verdict.rows,
        lost=verdict.lost,
        doubled=verdict.doubled,
        made_again=made_again(scene.traffic()),
        wasted_s=verdict.wasted_s,
        problems=tuple(problems),
    )
