"""docs/screens.md names every key of a rule, with its meaning and an example that is valid."""

from __future__ import annotations

import re

import yaml

from manifests.screen import Rule
from tests.conftest import ROOT


def test_every_key_of_a_rule_is_documented() -> None:
    page = (ROOT / "docs" / "screens.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (.*) \| `(.*)` \|$", page, re.MULTILINE)
    assert [(name, meaning) for name, meaning, _ in rows] == [
        (name, field.description) for name, field in Rule.model_fields.items()
    ]
    for name, _, example in rows:
        assert yaml.safe_load(example) == {name: (Rule.model_fields[name].examples or [])[0]}
        least = {"reason": "r", "column": "c", "equals": True}
        assert Rule.model_validate(least | yaml.safe_load(example))
