"""CSV and JSON Lines: staged block by block, and no row is lost."""

from __future__ import annotations

import gc
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from input_tables import DEFAULTS, job_config

from cluster.input_files import InputFiles
from cluster.plan_file import STAGED_MARK, PlanReader, write_plan
from cluster.reader import ShardRows, read_shard
from cluster.store import Store
from conf.errors import InputChanged, InputError, RowRejected
from jobs import staging
from jobs.plan import check_inputs_unchanged, make_plan
from operators.request import parse_row
from tests.stores import ONCE


def rows_of(path: Path, **changes: Any) -> list[tuple[dict[str, Any], str | None, dict[str, Any]]]:
    """(known, label, extras) of every row, as planned and read through a store."""
    store = Store(str(path.parent / "out"))
    config = job_config(path, output=store.url, **changes)
    planned = make_plan(config, store)
    open_file = InputFiles.of(config, store).open
    found = []
    for shard in planned.shards:
        assert shard.file.startswith(STAGED_MARK + "plan/staged/")
        rows: ShardRows = read_shard(shard, config.input.columns, open_file)
        extras = rows.extras.to_pylist()
        found += [(rows.known(i), rows.label(i), extras[i]) for i in range(rows.rows)]
    assert len(found) == planned.rows
    return found


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_csv(tmp_path: Path) -> None:
    path = write(
        tmp_path / "p.csv",
        'prompt,seed,guidance_scale,id,zip\n"a, b",7,1.5,x1,007\n"two\nlines",,,,\n',
    )
    assert rows_of(path) == [
        ({"prompt": "a, b", "seed": 7, "guidance_scale": 1.5}, "x1", {"zip": "007"}),
        ({"prompt": "two\nlines", "seed": None, "guidance_scale": None}, None, {"zip": None}),
    ]


def test_csv_row_with_a_wrong_value_costs_itself_only(tmp_path: Path) -> None:
    path = write(tmp_path / "p.csv", "prompt,seed\na,1\nb,many\nc,3\n")
    known = [row[0] for row in rows_of(path)]
    assert [row["seed"] for row in known] == [1, "many", 3]
    with pytest.raises(RowRejected, match="seed is 'many'; expected a whole number"):
        parse_row(known[1], row_id=1, defaults=DEFAULTS)


def test_csv_empty_prompts_become_rows_that_are_rejected(tmp_path: Path) -> None:
    path = write(tmp_path / "p.csv", 'prompt,seed\n,1\n"",2\nNA,3\nnull,4\n')
    known = [row[0] for row in rows_of(path)]
    assert [row["prompt"] for row in known] == [None, "", "NA", "null"]
    for row in known[:2]:
        with pytest.raises(RowRejected) as error:
            parse_row(row, row_id=0, defaults=DEFAULTS)
        assert error.value.reason == "empty_prompt"


def test_csv_of_one_column_keeps_its_empty_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "p.csv", "prompt\na\n\nb\n")
    assert [row[0]["prompt"] for row in rows_of(path)] == ["a", None, "b"]


def test_csv_blank_lines_between_rows_of_several_columns_are_no_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "p.csv", "prompt,seed\na,1\n\nb,2\n\n")
    assert [row[0]["prompt"] for row in rows_of(path)] == ["a", "b"]


def test_csv_without_rows_is_fine(tmp_path: Path) -> None:
    assert rows_of(write(tmp_path / "p.csv", "prompt,seed\n")) == []


def test_csv_with_byte_order_mark(tmp_path: Path) -> None:
    assert rows_of(write(tmp_path / "p.csv", "\ufeffprompt\nx\n"))[0][0] == {"prompt": "x"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"prompt,seed\na,1\nb,2,3\n", "Expected 2 columns, got 3.*stands in double quotes"),
        (b"", "Empty CSV file; expected a first line with the names of the columns"),
        (b"\n\n", "Empty CSV file; expected a first line"),
        (b"prompt\n\xff\xfe\n", "invalid UTF8 data; expected UTF-8 text: save it as UTF-8"),
        (b"prompt,caf\xe9\nx,1\n", "can't decode byte 0xe9.*; expected UTF-8 text"),
        ("prompt,id\nx,1\n".encode("utf-16"), "it is UTF-16 text; save it as UTF-8"),
    ],
)
def test_csv_that_cannot_be_parsed(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "p.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"p\.csv cannot be read as CSV: .*{said}"):
        make_plan(job_config(path), None)


@pytest.mark.parametrize(
    ("mark", "named"), [(";", "semicolons"), ("\t", "tabs"), ("|", "vertical bars")]
)
def test_csv_with_other_separators_says_so(tmp_path: Path, mark: str, named: str) -> None:
    path = write(tmp_path / "p.csv", f"prompt{mark}id\na cat{mark}1\n")
    with pytest.raises(InputError, match=f"columns are separated by {named}, and expected are co"):
        make_plan(job_config(path), None)


def test_csv_of_one_column_may_be_called_anything(tmp_path: Path) -> None:
    path = write(tmp_path / "p.csv", "a|b\na cat\n")
    config = job_config(path)
    columns = replace(config.input.columns, prompt="a|b")
    planned = make_plan(replace(config, input=replace(config.input, columns=columns)), None)
    assert planned.rows == 1


def test_a_column_is_mapped_by_words_that_a_shell_can_take(tmp_path: Path) -> None:
    path = write(tmp_path / "p.csv", "id,the prompt (en)\n1,a\n")
    with pytest.raises(InputError, match=r" with 'input\.columns\.prompt=the prompt \(en\)'$"):
        make_plan(job_config(path), None)


def test_csv_without_the_prompt_column(tmp_path: Path) -> None:
    path = write(tmp_path / "p.csv", "caption,seed\na,1\n")
    with pytest.raises(InputError, match=r"p\.csv has no column 'prompt'.*prompt=caption"):
        make_plan(job_config(path), None)


def lines(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_jsonl(tmp_path: Path) -> None:
    path = write(
        tmp_path / "p.jsonl",
        lines(
            {"prompt": "2020-01-01", "seed": 2**62 + 1, "when": "2021-01-01", "n": {"a": [1]}},
            {"prompt": "y", "late": True, "id": 5},
        ),
    )
    first, second = rows_of(path)
    assert first[0] == {"prompt": "2020-01-01", "seed": 2**62 + 1}
    assert first[2] == {"when": "2021-01-01", "n": {"a": [1]}, "late": None}
    assert (second[1], second[2]["late"], second[0]["seed"]) == ("5", True, None)


@pytest.mark.parametrize("name", ["p.json", "p.ndjson", "p.jsonl"])
def test_json_endings_and_blank_lines(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, '{"prompt": "a"}\n\n{"prompt": "b"}')
    assert [row[0]["prompt"] for row in rows_of(path)] == ["a", "b"]


@pytest.mark.parametrize("text", ["", "\n\n"])
def test_jsonl_without_rows_is_fine(tmp_path: Path, text: str) -> None:
    path = write(tmp_path / "p.jsonl", text)
    planned = make_plan(job_config(path), None)
    assert (planned.rows, list(planned.shards)) == (0, [])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"prompt": "a"}\n{"prompt": \n', "line 2: JSON parse error.*one JSON object a line$"),
        ('\n{"prompt": "a"}\n\n{nope\n', "line 4: JSON parse error: Missing a name for obj"),
        ('{"prompt": "a"}\n{"prompt": 1}\n', "changed from string to number"),
        ('[{"prompt": "a"}]', "one JSON array; expected one JSON object a line"),
        ("hello\n", "JSON parse error"),
    ],
)
def test_jsonl_that_cannot_be_parsed(tmp_path: Path, text: str, said: str) -> None:
    path = write(tmp_path / "p.jsonl", text)
    with pytest.raises(InputError, match=rf"p\.jsonl .*{said}"):
        make_plan(job_config(path), None)


def test_fields_and_types_that_show_late_in_a_large_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "_BLOCK_BYTES", 200)
    rows: list[dict[str, Any]] = [{"prompt": f"p{i}", "score": i} for i in range(50)]
    rows += [{"prompt": "late", "score": 0.5, "extra": "2020-01-01"}, {"prompt": "x", "extra": "q"}]
    found = rows_of(write(tmp_path / "p.jsonl", lines(*rows)))
    assert [row[0]["prompt"] for row in found] == [row["prompt"] for row in rows]
    assert [row[2]["score"] for row in found] == [row.get("score") for row in rows]
    assert [row[2]["extra"] for row in found][-2:] == ["2020-01-01", "q"]


def test_a_late_parse_error_names_the_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "_BLOCK_BYTES", 200)
    text = lines(*({"prompt": f"p{i}"} for i in range(100))) + "{broken\n"
    with pytest.raises(InputError, match="line 101: JSON parse error"):
        make_plan(job_config(write(tmp_path / "p.jsonl", text)), None)


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_a_large_file_becomes_several_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    monkeypatch.setattr(staging, "_BLOCK_BYTES", 1000)
    monkeypatch.setattr(staging, "PART_BYTES", 1500)
    texts = [f"a red circle, number {i}" for i in range(300)]
    csv = "prompt,k\n" + "".join(f'"{t}",{i}\n' for i, t in enumerate(texts))
    jsonl = lines(*({"prompt": t, "k": str(i)} for i, t in enumerate(texts)))
    path = write(tmp_path / f"p.{ending}", csv if ending == "csv" else jsonl)
    assert [row[0]["prompt"] for row in rows_of(path)] == texts
    store = Store(str(tmp_path / "out"))
    planned = make_plan(job_config(path, output=store.url), store)
    assert len(planned.inputs) > 2
    starts = [sum(i.rows for i in planned.inputs[:n]) for n in range(len(planned.inputs))]
    assert [i.source_row for i in planned.inputs] == starts
    assert {i.source for i in planned.inputs} == {str(path)}
    write_plan(store, planned.inputs, planned.shards)
    assert tuple(PlanReader(store).inputs()) == planned.inputs


def test_staging_again_writes_the_same_parts(tmp_path: Path) -> None:
    path = write(tmp_path / "p.csv", "prompt\na\n")
    store = Store(str(tmp_path / "out"))
    config = job_config(path, output=store.url)
    assert make_plan(config, store).inputs == make_plan(config, store).inputs
    assert len(store.listing("plan/staged")) == 1


def test_dry_run_stages_into_a_folder_that_goes_away(tmp_path: Path) -> None:
    path = write(tmp_path / "p.csv", "prompt\na\n")
    config = job_config(path, output=tmp_path / "out")
    planned = make_plan(config, None)
    staged = Path(planned.inputs[0].file)
    shard = next(planned.shards)
    assert read_shard(shard, config.input.columns, InputFiles().open).known(0)["prompt"] == "a"
    assert not (tmp_path / "out").exists()
    del planned
    gc.collect()
    assert not staged.exists()


def test_folder_of_all_formats(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write(tmp_path / "in/a.csv", "prompt\na\n")
    write(tmp_path / "in/b.jsonl", lines({"prompt": "b"}))
    planned = make_plan(job_config(tmp_path / "in"), None)
    assert [(i.source[-7:], i.rows) for i in planned.inputs] == [("n/a.csv", 1), ("b.jsonl", 1)]
    assert make_plan(job_config(tmp_path / "in", format="csv"), None).rows == 1


def test_staged_source_may_go_but_not_change(tmp_path: Path) -> None:
    path = write(tmp_path / "p.csv", "prompt\na\n")
    store = Store(str(tmp_path / "out"))
    config = job_config(path, output=store.url)
    planned = make_plan(config, store)
    write_plan(store, planned.inputs, planned.shards)
    files = InputFiles.of(config, store)
    check_inputs_unchanged(PlanReader(store), files)
    path.unlink()
    check_inputs_unchanged(PlanReader(store), files)
    write(path, "prompt\na\nb\n")
    with pytest.raises(InputChanged, match=r"p\.csv changed after it was planned"):
        check_inputs_unchanged(PlanReader(store), files)


def test_staged_part_that_is_gone(tmp_path: Path) -> None:
    path = write(tmp_path / "p.csv", "prompt\na\n")
    store = Store(str(tmp_path / "out"), ONCE)
    config = job_config(path, output=store.url)
    shard = next(make_plan(config, store).shards)
    store.delete(shard.file.removeprefix(STAGED_MARK))
    with pytest.raises(InputChanged, match="is gone"):
        read_shard(shard, config.input.columns, InputFiles.of(config, store).open)
