"""The numbers of docs/performance.md follow from what was measured as the page says."""

from __future__ import annotations

import pytest

from benchmarks.goals import goals, served_to, speedup, steady_rate, whole_rate
from benchmarks.page import page
from benchmarks.results import Overlap, Results, Run, Served, Settings, Share
from benchmarks.simulation import IN_BATCHES, PUBLISHED, simulate, tables
from benchmarks.spread import Spread, ratios
from benchmarks.timeline import Made, denoiser_share, fill
from benchmarks.timeline import steady_rate as rate_of
from benchmarks.workloads import equal_groups, rows_of, work


def made(started_s: float, finished_s: float, **changes: float) -> Made:
    usual = {"work": 1.0, "denoiser_s": 1.0, "group": 1, "steps": 10}
    return Made(started_s=started_s, finished_s=finished_s, **{**usual, **changes})


def run(way: str, turn: int, **changes: float) -> Run:
    usual = {
        "workload": "mixed",
        "images": 60,
        "whole_s": 60.0,
        "steady_per_second": 1.0,
        "denoiser_share": 0.9,
        "fill": 0.5,
        "difference": 0,
    }
    return Run(way=way, turn=turn, **{**usual, **changes})


def results(**parts: object) -> Results:
    return Results(
        written_at="22 November 2026",
        command="python -m benchmarks",
        took_s={"contest": 60.0},
        load_average={"contest": 0.1},
        machine={
            "cpu": "a processor",
            "threads": 2,
            "memory_gib": 8,
            "python": "3.11",
            "packages": {"torch": "2"},
        },
        settings=Settings(rows=60, turns=2, batch=16, model="m", same_malloc=True),
        **parts,
    )


def test_a_spread_is_least_median_and_most():
    assert Spread.of([3.0, 1.0, 2.0]).text() == "2.00 (1.00–3.00)"
    assert Spread.of([1.5]).text() == "1.50"
    assert Spread.of([0.5, 0.75]).percent() == "62 (50–75) %"


def test_nothing_measured_has_no_spread():
    with pytest.raises(ValueError, match="expected at least one turn"):
        Spread.of([])


def test_a_ratio_is_taken_within_each_turn_and_not_of_the_medians():
    found = ratios({0: 2.0, 1: 30.0, 2: 8.0}, {0: 1.0, 1: 10.0, 2: 2.0})
    assert found == Spread(least=2.0, median=3.0, most=4.0)


def test_turns_that_only_one_way_has_are_left_out():
    assert ratios({0: 2.0, 1: 9.0}, {0: 1.0}) == Spread(least=2.0, median=2.0, most=2.0)


def test_the_steady_rate_begins_with_the_end_of_the_first_group():
    images = [made(0, 10), made(0, 10), made(10, 11), made(11, 12)]
    # the second half of the work took 2 seconds to its last byte
    assert rate_of(images, last_byte_s=12.0) == pytest.approx(4 * 0.5 / 2.0)


def test_a_light_first_group_does_not_make_the_rest_look_slow():
    heavy = [made(0, 1, work=1.0), made(1, 4, work=3.0)]
    light = [made(0, 3, work=3.0), made(3, 4, work=1.0)]
    assert rate_of(heavy, 4.0) == pytest.approx(rate_of(light, 4.0)) == pytest.approx(0.5)


def test_one_group_has_no_steady_state():
    with pytest.raises(ValueError, match="all 2 images are of the first group"):
        rate_of([made(0, 10), made(0, 10)], last_byte_s=10.0)


def test_the_denoisers_share_is_of_the_time_from_first_start_to_last_end():
    assert denoiser_share([made(0, 2, denoiser_s=1.0), made(2, 4, denoiser_s=2.0)]) == 0.75


def test_fill_counts_the_slots_of_every_step():
    full = [made(0, 1, group=4, steps=10)] * 4
    alone = [made(1, 2, group=1, steps=30)]
    assert fill(full, 4) == 1.0
    assert fill([*full, *alone], 4) == pytest.approx((40 + 30) / (40 + 4 * 30))


def test_groups_hold_equal_rows_only_and_no_more_than_asked():
    rows = rows_of("mixed", 500)
    groups = list(equal_groups(rows, 3))
    assert sorted(row["id"] for group in groups for row in group) == [row["id"] for row in rows]
    assert max(map(len, groups)) == 3
    for group in groups:
        assert len({(row["steps"], row["guidance_scale"], row["sampler"]) for row in group}) == 1
        assert len({(row["width"], row["height"]) for row in group}) == 1


def test_no_two_prompts_are_alike_also_in_another_draw_of_the_same_rows():
    first, second = rows_of("mixed", 100, draw=0), rows_of("mixed", 100, draw=1)
    assert len({row["prompt"] for row in [*first, *second]}) == 200
    assert [work(row) for row in first] == [work(row) for row in second]


def test_guidance_doubles_the_work():
    row = {"guidance_scale": 1.0, "steps": 10, "width": 64, "height": 64}
    assert work({**row, "guidance_scale": 3.0}) == 2 * work(row) == 2 * 10 * 64 * 64


def test_goals_are_judged_by_the_median_of_the_turns():
    runs = [run("ray", turn) for turn in range(3)]
    for turn, rate in enumerate((1.4, 1.6, 1.7)):
        runs.append(run("exact", turn, steady_per_second=rate, whole_s=40.0))
    found = {goal.text: goal for goal in goals(results(runs=runs))}
    steady = found["mixed rows, steady state: exact to Ray Data"]
    assert (steady.verdict, steady.found.text()) == ("met", "1.60 (1.40–1.70)")
    whole = found["mixed rows, whole run: exact to Ray Data"]
    assert (whole.verdict, whole.found.text()) == ("**not met**", "1.50")
    assert found["uniform rows, steady state: fast to Ray Data"].verdict == "not measured"


def test_a_speedup_compares_the_same_workload():
    runs = [run("ray", 0), run("exact", 0, workload="uniform", steady_per_second=5.0)]
    assert speedup(results(runs=runs), "mixed", "exact", "ray", steady_rate) is None


def test_the_whole_rate_counts_start_and_end():
    assert whole_rate(run("ray", 0, images=30, whole_s=60.0)) == 0.5


def test_the_engine_is_held_to_the_best_batch_of_the_bare_denoiser():
    share = Share(
        precision="float32",
        turn=0,
        bare_per_second={"4": 50.0, "16": 100.0, "32": 80.0},
        uniform_per_second=96.0,
        one_shape_per_second=90.0,
        uniform_denoiser_share=0.97,
        one_shape_denoiser_share=0.96,
        fill=0.94,
    )
    found = {goal.text: goal for goal in goals(results(shares=[share]))}
    bare = found["exact engine to the bare denoiser at its best batch"]
    assert (bare.found.text(), bare.verdict) == ("0.96", "met")
    assert found["batch fill on mixed rows of one shape"].verdict == "**not met**"


def test_the_slow_stores_worker_is_compared_with_the_engine_alone():
    one = Overlap(
        turn=0, images=8, loop_per_second=2.0, worker_per_second=1.9, whole_per_second=1.8
    )
    found = {goal.text: goal for goal in goals(results(overlaps=[one]))}
    assert found["a store of 200 ms a put to the engine alone"].found.text() == "0.95"


def served(way: str, turn: int = 0, flowing_s: float = 10.0, **batches: int) -> Served:
    return Served(
        way=way,
        turn=turn,
        images=40,
        whole_s=20.0,
        flowing_s=flowing_s,
        step_rows=4.0,
        batches={size.removeprefix("of_"): count for size, count in batches.items()},
        difference=1,
    )


def test_the_mean_batch_of_a_server_counts_its_rows_and_not_its_sizes():
    assert served("dynamic", of_1=2, of_8=6).mean_batch == (2 * 1 + 6 * 8) / 8
    assert served("in process").mean_batch is None
    found = {goal.text: goal for goal in goals(results(served=[served("dynamic", of_8=3)]))}
    text = "mixed rows through Triton, dynamic: batches that it executed, of 8"
    assert found[text].found == Spread.of([1.0])


def test_a_way_through_triton_is_compared_with_the_same_turns_of_the_other():
    mine = [served("continuous", 0, 5.0), served("continuous", 1, 20.0)]
    other = [served("dynamic", 0, 10.0), served("dynamic", 1, 10.0)]
    assert served_to(results(served=[*mine, *other]), "continuous", "dynamic") == Spread(
        least=0.5, median=1.25, most=2.0
    )


def test_the_page_has_a_line_for_each_way_through_triton():
    made_so = [served("in process"), served("dynamic", flowing_s=20.0, of_2=1, of_4=1)]
    lines = page(results(served=made_so)).splitlines()
    assert "| in process | 4.00 | 1.00 | 2.00 | 20 | – | 4.0 | 1 |" in lines
    assert "| dynamic | 2.00 | 0.50 | 1.00 | 20 | 3.0 | 4.0 | 1 |" in lines


def test_simulated_ways_take_the_published_time_of_every_step():
    row = {"steps": 20, "guidance_scale": 1.0, "width": 64, "height": 64}
    full = tables([row] * 16, 16)
    assert full.images_per_second == pytest.approx(16 / (20 * PUBLISHED[16]))
    assert full.fill == 1.0
    wide = tables([{**row, "width": 96}] * 16, 16)
    assert wide.images_per_second == pytest.approx(full.images_per_second / 1.5)
    guided = tables([{**row, "guidance_scale": 3.0}] * 4, 16)
    assert guided.images_per_second == pytest.approx(4 / (20 * PUBLISHED[8]))
    assert guided.fill == 0.25


def test_in_simulation_every_way_makes_all_rows_and_tables_are_never_behind():
    for rows in (30, 300):
        found = simulate(rows, 16)
        assert {one.rows for one in found} == {rows}
        groups = [one for one in found if one.way == IN_BATCHES]
        assert len(groups) == 1
        *static, ours = sorted(found, key=lambda one: one.images_per_second)
        assert ours.way.startswith("sampler tables")
        assert ours.fill == max(one.fill for one in [ours, *static])
