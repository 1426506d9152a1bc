"""Tags are read from whatever form a table keeps them in."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.row_tags import row_tags, tags_of


@pytest.mark.parametrize(
    ("cell", "tags"),
    [
        (None, {}),
        ("", {}),
        ("customer=acme", {"customer": "acme"}),
        (" customer = acme , rush,,x=", {"customer": "acme", "rush": "true", "x": ""}),
        ("url=a=b", {"url": "a=b"}),
        ('{"customer": "acme", "n": 3, "ok": true, "off": null}',
         {"customer": "acme", "n": "3", "ok": "true"}),
        ('{"nested": {"a": [1]}}', {"nested": '{"a": [1]}'}),
        ("{broken", {"{broken": "true"}),
        ({"customer": "acme", "n": 1.5, "none": None}, {"customer": "acme", "n": "1.5"}),
        (["customer=acme", "rush", None], {"customer": "acme", "rush": "true"}),
        ([("customer", "acme"), ("none", None)], {"customer": "acme"}),
        (7, {"7": "true"}),
        (b"raw", {"b'raw'": "true"}),
    ],
)  # fmt: skip
def test_a_cell_is_read_in_its_own_form(cell: Any, tags: dict[str, str]) -> None:
    assert row_tags(cell) == tags


@pytest.mark.parametrize(
    ("column", "tags"),
    [
        (pa.array([[("customer", "acme")], None], pa.map_(pa.string(), pa.string())),
         [{"customer": "acme"}, {}]),
        (pa.array([{"customer": "acme", "n": None}]), [{"customer": "acme"}]),
        (pa.array([["customer=acme", "rush"], []]), [{"customer": "acme", "rush": "true"}, {}]),
        (pa.array(["a=1", "a=1", None]).dictionary_encode(), [{"a": "1"}, {"a": "1"}, {}]),
    ],
)  # fmt: skip
def test_a_column_of_any_type_is_read(column: Any, tags: list[dict[str, str]]) -> None:
    assert tags_of(column) == tags


@given(st.recursive(
    st.none() | st.text() | st.integers() | st.binary() | st.floats() | st.booleans(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
))  # fmt: skip
def test_whatever_a_cell_holds_becomes_names_and_texts(cell: Any) -> None:
    for name, value in row_tags(cell).items():
        assert name
        assert isinstance(name, str)
        assert isinstance(value, str)
