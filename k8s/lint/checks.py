"""All rules, and what a bundle breaks of them."""

from __future__ import annotations

from collections.abc import Mapping

from k8s.lint.availability_rules import AVAILABILITY_RULES
from k8s.lint.bundle import Bundle, Finding, Rule
from k8s.lint.core_schemas import CORE_RULES
from k8s.lint.crd_schemas import CRD_RULES
from k8s.lint.kueue_rules import KUEUE_RULES
from k8s.lint.monitoring_schemas import MONITORING_RULES
from k8s.lint.operator_rules import OPERATOR_RULES
from k8s.lint.placement_rules import PLACEMENT_RULES
from k8s.lint.reference_rules import REFERENCE_RULES
from k8s.lint.run_line import RUN_RULES
from k8s.lint.security_rules import SECURITY_RULES

RULES: dict[str, Rule] = {
    **CRD_RULES,
    **CORE_RULES,
    **MONITORING_RULES,
    **OPERATOR_RULES,
    **KUEUE_RULES,
    **SECURITY_RULES,
    **REFERENCE_RULES,
    **AVAILABILITY_RULES,
    **PLACEMENT_RULES,
    **RUN_RULES,
}
"""Every rule by the name that its findings carry."""


SCHEMAS: dict[str, Rule] = {**CRD_RULES, **CORE_RULES, **MONITORING_RULES}
"""Those that any object is held against, alone."""


def check(bundle: Bundle, rules: Mapping[str, Rule] = RULES) -> tuple[Finding, ...]:
    """What is wrong with the objects of an overlay, rule by rule."""
    return tuple(
        Finding(rule=name, where=where, what=what)
        for name, rule in rules.items()
        for where, what in rule(bundle)
    )
