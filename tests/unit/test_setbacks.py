"""When the next worker is hired after losses, and when nobody is any more."""

from __future__ import annotations

from cluster.setbacks import Setbacks


def pauses(setbacks: Setbacks, losses: int, *, crashed: bool) -> list[float]:
    """Seconds from each hire to the earliest next one."""
    now_s, waited = 100.0, []
    for _ in range(losses):
        setbacks.lost(crashed=crashed)
        assert setbacks.may_hire(now_s, 9) == 1, "one at a time after a loss"
        setbacks.hired(now_s)
        waited.append(setbacks.hire_at_s - now_s)
        now_s = setbacks.hire_at_s
    return waited


def test_before_any_loss_all_are_hired_at_once() -> None:
    setbacks = Setbacks(crew=4, max_attempts=3)
    assert setbacks.may_hire(0.0, 4) == 4
    setbacks.hired(0.0)
    assert setbacks.may_hire(0.0, 3) == 3


def test_the_first_replacement_comes_at_once_and_pauses_grow_while_the_store_is_away() -> None:
    setbacks = Setbacks(crew=12, max_attempts=3)
    assert pauses(setbacks, 8, crashed=False) == [0.5, 1, 2, 4, 8, 16, 30, 30]


def test_of_many_workers_that_stop_together_one_is_replaced_at_a_time() -> None:
    setbacks = Setbacks(crew=12, max_attempts=3)
    for _ in range(12):
        setbacks.lost(crashed=False)
    assert setbacks.may_hire(100.0, 12) == 1
    setbacks.hired(100.0)
    assert setbacks.may_hire(100.4, 11) == 0
    assert setbacks.may_hire(100.5, 11) == 1


def test_the_search_for_a_row_that_kills_is_not_slowed_down() -> None:
    assert max(pauses(Setbacks(crew=1, max_attempts=3), 13, crashed=True)) == 1.0


def test_a_commit_ends_the_row_of_losses() -> None:
    setbacks = Setbacks(crew=4, max_attempts=3)
    setbacks.lost(crashed=False)
    setbacks.hired(100.0)
    setbacks.progress(0)
    assert setbacks.may_hire(100.0, 4) == 0
    setbacks.progress(1)
    assert setbacks.may_hire(100.0, 4) == 4
    assert setbacks.in_a_row == 0


def test_a_count_that_stands_still_or_goes_back_is_no_progress() -> None:
    setbacks = Setbacks(crew=1, max_attempts=1)
    setbacks.progress(7)
    setbacks.lost(crashed=True)
    setbacks.progress(7)
    setbacks.progress(3)
    setbacks.progress(7)
    assert setbacks.in_a_row == 1


def test_a_bisection_of_a_shard_is_borne_and_then_its_attempts_and_not_for_ever() -> None:
    setbacks = Setbacks(crew=2, max_attempts=3)
    for _ in range(2 * (16 + 4 * 3)):
        setbacks.lost(crashed=True)
        assert not setbacks.hopeless
    setbacks.lost(crashed=True)
    assert setbacks.hopeless


def test_stops_are_borne_less_often_than_crashes() -> None:
    setbacks = Setbacks(crew=2, max_attempts=3)
    for _ in range(1 + 4 * 3):
        setbacks.lost(crashed=False)
        assert not setbacks.hopeless
    setbacks.lost(crashed=False)
    assert setbacks.hopeless
