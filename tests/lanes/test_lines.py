"""The text of what counts lines refers to nothing but its arguments. That it counts is tested in test_machine."""

import re

from connector.lanes import lines


def test_the_text_defines_one_function_and_has_no_data():
    assert re.findall(r"^define i64 (@\w+)", lines.TEXT, re.MULTILINE) == [f"@{lines.NAME}"]
    assert {name for name in re.findall(r"@[\w.]+", lines.TEXT) if not name.startswith("@llvm.ctpop.")} == {f"@{lines.NAME}"}
    assert not re.search(r"^@", lines.TEXT, re.MULTILINE)
