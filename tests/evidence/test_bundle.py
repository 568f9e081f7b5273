"""A file that is written line by line: what is written is read back, and what is no member is not written."""

import pytest

from connector.evidence.bundle import Bundle
from connector.evidence.members import Finding, read
from connector.evidence.sealed import unsealed
from tests.evidence.rig import SOUND


def test_what_is_written_is_read_back_in_its_order_and_counted():
    bundle = Bundle()
    header = SOUND.one("evidence")
    data = bundle.header(header["agreement"], header["by"], header["role"], header["at"])
    data += b"".join(bundle.add(kind, value) for kind, value in SOUND.members[1:])
    attestation = SOUND.attestation(bundle.sha256)
    data += bundle.add("attestation", attestation) + bundle.close()
    assert data == SOUND.data
    body, found = unsealed(data), list[Finding]()
    assert isinstance(body, bytes)
    members = list(read(body, found))
    assert found == []
    assert [(member.kind, member.value) for member in members[:-1]] == [*SOUND.members, ("attestation", attestation)]
    assert members[-1].value["members"]["entry"] == len(SOUND.all("entry"))


@pytest.mark.parametrize("value", [{}, {"pid": "x"}, {"pid": "x", "document": []}, {"pid": "x", "document": {}, "more": 1}])
def test_what_is_no_member_of_its_kind_is_not_written(value: dict[str, object]):
    with pytest.raises(ValueError, match="a member of kind `decision` cannot be written"):
        Bundle().add("decision", value)


def test_a_number_that_json_does_not_carry_is_not_written():
    with pytest.raises(ValueError, match="exceeds"):
        Bundle().add("decision", {"pid": "x", "document": {"n": 2**60}})
