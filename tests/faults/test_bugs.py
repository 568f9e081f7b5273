"""Each planted defect still has something to change in the product, and names points at which a kill shows it."""

import subprocess
import sys

import pytest

from tests.faults.bugs import BUGS
from tests.faults.home import ROOT

# What a defect replaces, as it stands before and after: in a process of its own, as it stays there.
PROGRAM = """
import inspect, sys
from tests.faults import bugs
classes = [value for value in vars(bugs).values() if isinstance(value, type) and value.__module__.startswith("connector.")]
before = [dict(vars(each)) for each in classes]
bugs.BUGS[sys.argv[1]].plant()
changed = [f"{c.__name__}.{n}" for c, b in zip(classes, before) for n, v in vars(c).items() if b.get(n) is not v]
for c, b in zip(classes, before):
    for n, v in vars(c).items():
        if n in b and b[n] is not v:
            given = inspect.signature(b[n]).parameters
            named = {name: 1 for name, each in given.items() if each.kind is each.KEYWORD_ONLY}
            inspect.signature(v).bind(*range(len(given) - len(named)), **named)
new = [f"{c.__name__}.{n}" for c, b in zip(classes, before) for n in vars(c) if n not in b]
print(len(changed), *new)
"""


@pytest.mark.parametrize("name", sorted(BUGS))
def test_a_defect_replaces_something_that_the_product_has_and_is_called_as_that_is(name: str):
    ended = subprocess.run([sys.executable, "-c", PROGRAM, name], cwd=ROOT, capture_output=True, text=True, check=True)
    changed, *new = ended.stdout.split()
    assert int(changed) >= 1
    assert new == [], "a method that the product does not have is never called"


def test_each_defect_says_what_it_is_and_where_it_shows():
    assert all(bug.what and bug.where for bug in BUGS.values())
