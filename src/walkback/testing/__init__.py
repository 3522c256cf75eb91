"""The conformance kit: checks that every component of a kind must pass, with or without pytest.

    @pytest.mark.parametrize("check", checks("operator"), ids=str)
    def test_conforms(check):
        check(Case.of("my-operator", {"hidden": 8}))

`checks(kind, expected={"compiles": "the loop's length depends on the data"})` declares known failures and their
reasons. `check_component` returns the outcomes as records. pytest is not required.
"""

from __future__ import annotations

from walkback.testing.cases import SPACES, Case, Check, ConformanceError, NotApplicable, Outcome
from walkback.testing.suites import SUITES, check_component, checks, failed, outcomes

__all__ = [
    "SPACES",
    "SUITES",
    "Case",
    "Check",
    "ConformanceError",
    "NotApplicable",
    "Outcome",
    "check_component",
    "checks",
    "failed",
    "outcomes",
]
