"""Every way of breaking the manifests that we know of is caught, by the rule that is there for it.

That the rule is silent without the change, ``test_overlays`` shows.
"""

from __future__ import annotations

import pytest

from k8s.lint.checks import RULES
from tests.k8s.mutations import kueue, links, pods, ray, runs, schemas
from tests.k8s.mutations.mutation import Mutation
from tests.k8s.rendered import Change, changed

MUTATIONS: list[Mutation] = [
    mutation for module in (schemas, ray, kueue, pods, links, runs) for mutation in module.MUTATIONS
]


@pytest.mark.parametrize(
    ("rule", "overlay", "changes"),
    [(rule, f"overlays/{overlay}", changes) for rule, _, overlay, changes in MUTATIONS],
    ids=[f"{rule}: {what}" for rule, what, _, _ in MUTATIONS],
)
def test_the_rule_catches(rule: str, overlay: str, changes: list[Change]) -> None:
    found = list(RULES[rule](changed(overlay, *changes)))
    assert found, f"{rule} did not catch it"
    assert all(where and what for where, what in found)


def test_no_rule_is_without_a_mutation_and_none_is_caught_by_chance() -> None:
    assert {rule for rule, *_ in MUTATIONS} == set(RULES)
    names = [(rule, what) for rule, what, *_ in MUTATIONS]
    assert len(set(names)) == len(names) >= 25
