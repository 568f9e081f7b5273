"""The ports: each is kept by whatever the composition puts behind it, and by the fakes that tests put there instead.

What the methods must do is in `tests/contracts`; here is what no type checker says of the tests: names, kinds and ways to call.
"""

import ast
import inspect
import re
import textwrap
import typing
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import FrozenInstanceError, fields, is_dataclass, replace
from typing import Any, Protocol

import pytest

from connector import app, errors, ports
from connector.adapters.clock import SystemClock, TimeOrderedIds
from connector.adapters.expander import Expander
from connector.adapters.file_sink import FileSink, FileSinks
from connector.adapters.file_source import FileSource, FileSources
from connector.adapters.http_source import HttpSource, HttpSources
from connector.adapters.memory import MemoryStore
from connector.adapters.peer_http import HttpDownload, HttpPeer
from connector.adapters.sqlite import SqliteStore
from connector.adapters.tokens import RegistryIdentity
from connector.control.transfers import Views
from connector.dsp.messages import Move
from connector.ports import Act, Caller, Participant, Reply, Stat, TransferView
from tests.contracts import identity_contract
from tests.dataplane import rig
from tests.pair import Never

# port -> what stands behind it, in the product and in the tests.
KEPT_BY: dict[type, tuple[type, ...]] = {
    ports.Clock: (SystemClock, rig.ShiftedClock, identity_contract.SetClock),
    ports.Ids: (TimeOrderedIds, rig.Counted),
    ports.Identity: (RegistryIdentity, rig.FakeIdentity),
    ports.Store: (SqliteStore, MemoryStore),
    ports.Download: (HttpDownload,),
    ports.Peer: (HttpPeer,),
    ports.Source: (FileSource, HttpSource),
    ports.Sources: (FileSources, HttpSources),
    ports.Sink: (FileSink,),
    ports.Sinks: (FileSinks,),
    ports.Transfers: (Views, rig.FakeTransfers),
    ports.Expander: (Expander,),
    ports.Approver: (app.Automatic, Never),
}
WITHOUT_ANY_YET = {ports.Stage}  # the stages are a later step; the tests of the data plane have some of their own
PORTS = [each for each in vars(ports).values() if isinstance(each, type) and getattr(each, "_is_protocol", False) and each is not Protocol]
PAIRS = [(port, cls) for port, classes in KEPT_BY.items() for cls in classes]


def members(port: type) -> dict[str, Any]:
    """What a protocol demands: methods, properties, and (None) annotated attributes."""
    named = {name: member for name, member in vars(port).items() if not name.startswith("_")}
    return named | dict.fromkeys(vars(port).get("__annotations__", {}))


def has_attribute(cls: type, name: str) -> bool:
    """As a property, a slot, an annotation, or because its `__init__` sets it."""
    if inspect.getattr_static(cls, name, None) is not None or name in getattr(cls, "__annotations__", {}):
        return True
    tree = ast.parse(textwrap.dedent(inspect.getsource(cls.__init__)))
    return f"self.{name}" in {ast.unparse(each) for each in ast.walk(tree) if isinstance(each, ast.Attribute)}


def way(method: Callable[..., Any]) -> str:
    """How a result is got."""
    returned = typing.get_origin(typing.get_type_hints(method).get("return"))
    if returned is AbstractAsyncContextManager or hasattr(method, "__wrapped__"):
        return "async with"
    if returned in (AsyncIterator, AsyncGenerator):
        return "async for"
    return "await" if inspect.iscoroutinefunction(method) else "at once"


def test_every_port_is_kept_by_something():
    assert {*KEPT_BY, *WITHOUT_ANY_YET} == set(PORTS)


@pytest.mark.parametrize(("port", "cls"), PAIRS, ids=lambda each: each.__name__)
def test_what_stands_behind_a_port_is_used_as_the_port_says(port: type, cls: type):
    for name, demanded in members(port).items():
        where, offered = f"{cls.__name__}.{name}", inspect.getattr_static(cls, name, None)
        if not inspect.isfunction(demanded):
            assert has_attribute(cls, name), f"{where} is missing"
            assert not inspect.isfunction(offered), f"{where} is a method"
            continue
        assert inspect.isfunction(offered), f"{where} is missing"
        assert way(offered) == way(demanded), f"the result of {where} is not got alike"
        asked, given = (list(inspect.signature(each).parameters.values())[1:] for each in (demanded, offered))
        for at, parameter in enumerate(asked):
            if parameter.kind is parameter.KEYWORD_ONLY:
                there = next((each for each in given if each.name == parameter.name), None)
                assert there is not None, f"{where} takes no `{parameter.name}`"
                assert there.kind in (there.KEYWORD_ONLY, there.POSITIONAL_OR_KEYWORD), where
            else:  # callers pass it by position; one that is not used may say so (`_process`)
                there = given[at]
                assert there.name.lstrip("_") == parameter.name, f"{where} has `{there.name}` where `{parameter.name}` comes"
            assert there.default == parameter.default, f"{where} has another default of `{parameter.name}`"
        more = {each.name.lstrip("_"): each for each in given}.keys() - {parameter.name for parameter in asked}
        assert not more, f"{where} asks for more than the port gives: {more}"


def test_every_error_that_a_port_names_is_one_of_the_tree():
    """`Raises X` in a docstring is part of the contract: a word that is no error any more would be a promise that nobody keeps."""
    said = inspect.getsource(ports)
    named = {
        word for sentence in re.findall(r"\b[Rr]aises? ([^.]+)", said) for word in re.findall(r"\b[A-Z][a-z]+[A-Z]?[A-Za-z]+", sentence)
    }
    assert named >= {"Unauthenticated", "StoreError", "PeerFailed", "EgressDenied", "SourceFailed", "SinkFailed", "WireError", "Busy"}
    assert all(isinstance(getattr(errors, word, None), type) for word in named), named


@pytest.mark.parametrize("port", PORTS, ids=lambda each: each.__name__)
def test_every_port_says_what_it_promises(port: type):
    assert port.__doc__
    for name, member in members(port).items():
        if inspect.isfunction(member) and name != "close" and port is not ports.Store:  # a store's reads are what their names say
            assert member.__doc__, f"{port.__name__}.{name} has no contract"


PARTICIPANT = Participant("did:web:a.example", "a", "clinic", None, ())
MADE: dict[type, Any] = {
    Participant: PARTICIPANT,
    Caller: Caller(PARTICIPANT, {}, 1.0),
    Reply: Reply(200, {}, b""),
    Stat: Stat(1, "v", None, "text/plain"),
    TransferView: rig.view({"type": "file"}),
    Act: Act(Move.ACCEPTED),
}


def test_values_cannot_be_changed_by_whoever_gets_them():
    assert set(MADE) == {each for each in vars(ports).values() if is_dataclass(each) and each.__module__ == ports.__name__}
    for value in MADE.values():
        for field in fields(value):
            with pytest.raises(FrozenInstanceError):
                setattr(value, field.name, None)
        assert not hasattr(value, "__dict__")  # nor can anything be added


def test_values_that_say_the_same_are_equal_and_share_nothing():
    one, other = Participant("did:web:a.example", "a", "clinic", None, ()), Participant("did:web:a.example", "a", "clinic", None, ())
    assert one == other == PARTICIPANT
    assert one.claims is not other.claims
    assert replace(one, role="registry") != one
