"""The parts of the checks that say more than right or wrong."""

from __future__ import annotations

from fractions import Fraction

import pytest

from conf.errors import ConfigError
from k8s.lint.availability_rules import hook_notice_s
from k8s.lint.crd_schemas import rule_count, strict, with_defaults
from k8s.lint.kueue_rules import pod_sets
from k8s.lint.quantity import quantity
from k8s.lint.reference_rules import matches
from k8s.lint.run_line import config_of
from tests.k8s.rendered import rendered


@pytest.mark.parametrize(
    ("given", "number"),
    [("250m", Fraction(1, 4)), (2, 2), ("1.5", Fraction(3, 2)), ("64Gi", 2**36), ("5k", 5000)],
)
def test_a_quantity_is_the_number_that_kubernetes_reads(given: str | int, number: Fraction) -> None:
    assert quantity(given) == number


def test_what_is_no_quantity_is_told() -> None:
    with pytest.raises(ValueError, match="'64 GB' is no quantity; expected a form as 250m"):
        quantity("64 GB")


def test_a_strict_schema_refuses_only_what_an_api_server_would_drop() -> None:
    schema = {
        "properties": {
            "named": {"type": "object", "properties": {"a": {"type": "string"}}},
            "free": {"type": "object", "additionalProperties": {"type": "string"}},
            "kept": {
                "type": "object",
                "properties": {},
                "x-kubernetes-preserve-unknown-fields": True,
            },
            "plain": {"type": "object"},
        }
    }
    closed = strict(schema)
    assert closed["additionalProperties"] is False
    assert closed["properties"]["named"]["additionalProperties"] is False
    assert closed["properties"]["free"]["additionalProperties"] == {"type": "string"}
    assert "additionalProperties" not in closed["properties"]["kept"]
    assert "additionalProperties" not in closed["properties"]["plain"]


def test_defaults_are_filled_in_where_an_api_server_would() -> None:
    inner = {"properties": {"policy": {"default": "Never"}}}
    schema = {
        "properties": {"one": inner, "made": {"default": {}, **inner}, "many": {"items": inner}}
    }
    assert with_defaults(schema, {"one": {}, "many": [{"policy": "Any"}, {}]}) == {
        "one": {"policy": "Never"},
        "made": {"policy": "Never"},
        "many": [{"policy": "Any"}, {"policy": "Never"}],
    }


def test_the_crds_bring_rules_in_cel() -> None:
    assert rule_count() >= 10


def test_a_queued_job_is_counted_as_kueue_counts_it() -> None:
    (job,) = rendered("overlays/kueue").of_kind("RayJob")
    sets = {one.name: one for one in pod_sets(job)}
    assert {name: one.count for name, one in sets.items()} == {"head": 1, "gpu": 4, "submitter": 1}
    assert sets["gpu"].requests["nvidia.com/gpu"] == 1
    assert sets["head"].requests["cpu"] == 2

    (autoscaled,) = rendered("overlays/job").of_kind("RayJob")
    assert pod_sets(autoscaled)[0].requests["cpu"] == Fraction(5, 2), "with the autoscaler"


def test_a_selector_chooses_as_kubernetes_does() -> None:
    labels = {"component": "head", "part": "x"}
    some = [{"key": "component", "operator": "In", "values": ["head", "worker"]}]
    assert matches({}, labels)
    assert matches({"matchLabels": {"part": "x"}, "matchExpressions": some}, labels)
    assert not matches({"matchLabels": {"part": "y"}, "matchExpressions": some}, labels)
    assert not matches({"matchExpressions": [{**some[0], "operator": "NotIn"}]}, labels)
    assert matches({"matchExpressions": [{"key": "part", "operator": "Exists"}]}, labels)
    assert not matches({"matchExpressions": [{"key": "part", "operator": "DoesNotExist"}]}, labels)


def test_a_hook_is_read_by_its_own_parser() -> None:
    assert hook_notice_s(["python", "-m", "cluster.leave", "--notice-s", "12.5"]) == 12.5
    assert hook_notice_s(["python", "-m", "cluster.leave"]) is None
    assert hook_notice_s(["sleep", "30"]) is None


def test_a_refused_line_is_told_in_the_words_of_the_command_line() -> None:
    with pytest.raises(ConfigError, match="unrecognized arguments: --fast"):
        config_of("imagemill run --fast job.seed=1")
    with pytest.raises(ConfigError, match=r"job\.sed.*did you mean job\.seed"):
        config_of("imagemill run input.path=a output.path=b job.sed=1")
