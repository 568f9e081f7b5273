"""The text of the kernel: the numbers of the standard, and what code may refer to. That it hashes is tested in test_machine."""

import re

import pytest

from connector.lanes import kernel


def test_the_numbers_are_those_of_the_standard():
    """FIPS 180-4, 4.2.2 and 5.3.3: the first and the last of each."""
    assert (kernel.K[0], kernel.K[63], len(kernel.K)) == (0x428A2F98, 0xC67178F2, 64)
    assert (kernel.BEGIN[0], kernel.BEGIN[7], len(kernel.BEGIN)) == (0x6A09E667, 0x5BE0CD19, 8)


@pytest.mark.parametrize("lanes", [8, 16])
def test_the_text_defines_one_function_and_has_no_data(lanes: int):
    text = kernel.text(lanes)
    assert re.findall(r"^define void (@\w+)", text, re.MULTILINE) == [f"@{kernel.NAME}"]
    assert {name for name in re.findall(r"@[\w.]+", text) if not name.startswith("@llvm.")} == {f"@{kernel.NAME}"}
    assert not re.search(r"^@", text, re.MULTILINE)
