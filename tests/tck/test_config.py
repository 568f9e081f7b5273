"""The kit's configuration."""

from tests.tck import script
from tests.tck.config import DSP_PATH, Ports, properties, settings

PORTS = Ports(protocol=1111, initiate=2222, kit=3333)


def test_the_addresses_are_those_of_the_two_programs():
    values = settings(PORTS)
    assert values["dataspacetck.callback.address"] == "http://127.0.0.1:3333"
    assert values["dataspacetck.port"] == "3333"
    assert values["dataspacetck.dsp.connector.http.base.url"] == "http://127.0.0.1:1111"
    assert values["dataspacetck.dsp.connector.http.url"] == "http://127.0.0.1:1111" + DSP_PATH
    assert values["dataspacetck.dsp.connector.negotiation.initiate.url"] == "http://127.0.0.1:2222/tck/negotiations"
    assert not DSP_PATH.endswith("/")


def test_each_test_gets_the_fields_of_its_group():
    values = settings(PORTS)
    assert values["CN_01_02_DATASETID"] == "ACN0102"
    assert values["CN_01_02_OFFERID"] == "CD123:ACN0102:456"
    assert values["CN_C_03_06_DATASETID"] == "ACNC0306"
    assert "CN_C_03_06_OFFERID" not in values
    assert values["TP_02_04_AGREEMENTID"] == "ATP0204"
    assert values["TP_C_01_05_AGREEMENTID"] == "ATPC0105"
    assert values["TP_C_01_05_FORMAT"] == script.FORMAT
    assert values["CAT_01_03_DATASETID"] == "CAT0103"
    assert sum(key.endswith(("DATASETID", "AGREEMENTID")) for key in values) == 66  # MET has no id


def test_what_must_exist_is_what_the_tests_name_but_for_the_one_that_must_not():
    values = settings(PORTS)
    datasets = {value for key, value in values.items() if key.endswith("DATASETID") and not key.startswith("CN_C")}
    assert datasets - set(script.DATASETS) == {"CAT0103"}
    agreements = {value for key, value in values.items() if key.endswith("AGREEMENTID")}
    assert agreements == {*script.PROVIDER_AGREEMENTS, *script.CONSUMER_AGREEMENTS}


def test_a_backslash_is_doubled_for_java():
    assert properties({"a": "b", "c": "d\\e"}) == "a=b\nc=d\\\\e\n"
