"""How a command ends."""

import errno

import pytest

from connector.cli_run.ending import ended
from connector.errors import ConnectorError


def interrupted() -> None:
    raise KeyboardInterrupt


def not_done() -> None:
    raise ConnectorError("it is in use", ("by \x1b[31manother",))


def test_a_result_that_is_a_number_is_the_exit_code():
    assert (ended(lambda: 3), ended(lambda: None), ended(lambda: "text")) == (3, 0, 0)


def test_an_interrupted_command_ends_as_shells_expect_it():
    assert ended(interrupted) == 130


def test_what_was_not_done_is_said_with_its_reasons_and_ends_with_1(capsys: pytest.CaptureFixture[str]):
    assert ended(not_done) == 1
    assert capsys.readouterr().err == "connector: it is in use\n  - by another\n"


def test_an_error_of_the_system_that_is_not_about_the_output_is_not_called_one():
    def broken() -> None:
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        ended(broken)
