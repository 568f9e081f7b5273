"""The tree of errors and its table of answers: complete, said in one way, and silent about ourselves towards peers."""

import ast
import importlib
import pkgutil
import re
from collections.abc import AsyncIterator, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
import pytest_asyncio
from aiohttp import web

import connector
from connector import errors, telemetry
from connector.api import dsp_api, middleware
from connector.errors import ANSWERS, TOLD, Busy, ConnectorError, RangeNotSatisfiable, Refused, SettingsError, Withdrawn, answer_to, told
from tests.dataplane.rig import provider, serving

PRODUCT = Path(connector.__file__).parent
OWN = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, ConnectorError)]
ALL = [each for each in OWN if each is not ConnectorError]
PRIVATE = "the database `/srv/hidden/connector.db` of user hidden-user at 10.1.2.3 cannot be used"


def ours(error: object) -> bool:
    """Whether it is trouble on our side; a full queue is, but no secret."""
    return (
        not isinstance(error, ConnectorError)
        or (ANSWERS[type(error)][0] >= 500 and not isinstance(error, Busy))
        or isinstance(error, SettingsError)
    )


def made(cls: type[ConnectorError], text: str = PRIVATE) -> ConnectorError:
    return cls(text, 5) if cls is RangeNotSatisfiable else cls(text)


def everywhere() -> Iterator[type[ConnectorError]]:
    """All classes of the tree, wherever in the product they are."""
    for module in pkgutil.walk_packages(connector.__path__, "connector."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found = [ConnectorError]
    for each in found:
        found += each.__subclasses__()
        if each is not ConnectorError and each.__module__.startswith("connector."):
            yield each


def test_the_tree_is_the_one_that_the_module_draws():
    drawn: dict[str, str] = {}
    above = ["ConnectorError"]
    for bar, name in re.findall(r"^    ([│ ]*[├└]── )(\w+)", errors.__doc__ or "", re.MULTILINE):
        depth = len(bar) // 4
        above[depth:] = [name]
        drawn[name] = above[depth - 1]
    assert drawn == {each.__name__: each.__base__.__name__ for each in ALL}


def test_every_error_has_exactly_one_row_of_its_own():
    assert set(ANSWERS) == set(ALL)
    tree = ast.parse((PRODUCT / "errors.py").read_text())
    for name in ("ANSWERS", "TOLD"):  # a key that stands twice would silently win over itself
        table = next(n.value for n in ast.walk(tree) if isinstance(n, ast.AnnAssign) and ast.unparse(n.target) == name)
        keys = [ast.unparse(key) for key in table.keys]  # type: ignore[attr-defined, union-attr]
        assert sorted(keys) == sorted(set(keys))


@pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.__name__)
def test_an_error_is_answered_by_its_row(cls: type[ConnectorError]):
    status, code = answer_to(made(cls))
    assert (status, code) == ANSWERS[cls]
    assert 400 <= status < 600
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", code)


def test_an_error_from_further_inside_is_answered_as_the_one_that_it_is_a_kind_of():
    outside = [each for each in everywhere() if each not in ALL]
    assert {each.__name__ for each in outside} >= {"NotNow"}
    for each in outside:
        if not each.__module__.startswith("connector.client"):  # of the command line, which answers nobody
            assert any(parent in ANSWERS for parent in each.__mro__)
    with pytest.raises(TypeError, match="ConnectorError has no row in ANSWERS"):
        answer_to(ConnectorError("x"))


def test_a_refusal_and_a_withdrawal_may_say_more_precisely_why():
    assert answer_to(Refused("no", code="terms-changed")) == (400, "terms-changed")
    assert answer_to(Withdrawn("ended", "transfer-suspended")) == (403, "transfer-suspended")


def test_the_reasons_are_those_given_or_the_message():
    assert ConnectorError("one").reasons == ("one",)
    assert ConnectorError("one", ("two", "three")).reasons == ("two", "three")
    assert str(ConnectorError("one", ("two",))) == "one"


@pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.__name__)
def test_what_is_our_own_trouble_is_told_to_peers_without_detail(cls: type[ConnectorError]):
    error = made(cls)
    said = told(error)
    assert ours(error) == (said is not error)
    if ours(error):
        assert "hidden" not in f"{said.message} {said.reasons} {vars(said)}"
        assert len(said.message.split()) > 5
    assert error.message == PRIVATE  # what the log gets


def test_nothing_is_hidden_that_is_no_error_of_the_tree():
    assert set(TOLD) <= set(ALL)
    assert told(ConnectorError("as it is")).message == "as it is"


@pytest_asyncio.fixture
async def door() -> AsyncIterator[tuple[str, list[Any]]]:
    """A protocol listener whose handler raises what the list holds."""
    raising: list[Any] = []

    async def handler(_request: web.Request) -> web.Response:
        raise raising[0]

    tracing = telemetry.Tracing("test", 0.0)
    app = web.Application(middlewares=[middleware.guard(tracing, "protocol", dsp_api.render)])
    app.router.add_route("*", "/{path:.*}", handler)
    async with serving(app) as port:
        yield f"http://127.0.0.1:{port}{dsp_api.PATH}", raising
    tracing.close()


@pytest.mark.asyncio
@pytest.mark.parametrize("path", ["/negotiations/urn:x/events", "/transfers/urn:x/start", "/catalog/request"])
async def test_no_answer_of_the_protocol_shows_our_own_trouble(door: tuple[str, list[Any]], path: str):
    url, raising = door
    async with aiohttp.ClientSession() as http:
        for error in [*map(made, ALL), ValueError(PRIVATE), OSError(5, PRIVATE), KeyError(PRIVATE)]:
            raising[:] = [error]
            async with http.post(f"{url}{path}", json={}) as response:
                body, status = await response.read(), response.status
            shown = f"{body.decode()} {dict(response.headers)}"
            if ours(error):
                assert "hidden" not in shown
                assert "10.1.2.3" not in shown
            if isinstance(error, ConnectorError):
                assert status == ANSWERS[type(error)][0] or (status == 404 and body == b"")
            else:
                assert status == 500
                assert re.search(r"an error of this connector; trace [0-9a-f]{32}", shown)
            if body:
                assert orjson.loads(body)["code"] == (ANSWERS[type(error)][1] if isinstance(error, ConnectorError) else "internal")


@pytest.mark.asyncio
async def test_no_answer_of_the_data_listener_shows_our_own_trouble(tmp_path: Path):
    async with provider(tmp_path) as rig, aiohttp.ClientSession() as http:
        await rig.publish(b"data")
        for error in [*map(made, ALL), ValueError(PRIVATE)]:

            async def lookup(_pid: str, error: Exception = error) -> None:
                raise error

            rig.transfers.lookup = lookup  # type: ignore[method-assign, assignment]
            rig.flows.look_again()
            async with http.get(rig.endpoint, headers=rig.authorization()) as response:
                shown = f"{await response.text()} {dict(response.headers)}"
            assert response.status == (ANSWERS[type(error)][0] if isinstance(error, ConnectorError) else 500)
            assert ("Retry-After" in response.headers) == isinstance(error, Busy)
            if ours(error):
                assert "hidden" not in shown


@cache
def texts() -> list[tuple[str, str, str, bool]]:
    """List (place, class, text with {} for what is put in, whether reasons follow) of each error that the product makes."""
    return list(_texts())


def _texts() -> Iterator[tuple[str, str, str, bool]]:
    known = {each.__name__ for each in everywhere()}
    for path in sorted(PRODUCT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in known and node.args:
                match node.args[0]:
                    case ast.Constant(str(text)):
                        pass
                    case ast.JoinedStr(parts):
                        text = "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in parts)  # type: ignore[misc]
                    case _:
                        continue
                yield f"{path.relative_to(PRODUCT)}:{node.lineno}", node.func.id, text, len(node.args) > 1


def test_texts_are_sentences_in_one_style():
    """Small first letter, no full stop, no shouting; they say what it is about, and not only that something was wrong."""
    assert len(texts()) > 150
    for place, name, text, _ in texts():
        assert not re.match(r"[A-Z][a-z]", text), (place, text)
        assert not text.removesuffix("`").removesuffix("...").endswith((".", "!")), (place, text)
        assert not re.search(r"\b(invalid|illegal|bad|error occurred|failed to|unexpected)\b", text, re.IGNORECASE), (place, text)
        assert len(text.split()) >= 4 or "{}" in text, (place, name, text)


def test_mistakes_of_an_operator_come_with_the_thing_and_the_remedy():
    for place, name, text, reasons in texts():
        if name == "SettingsError" and not reasons:
            assert "`" in text or "{}" in text, (place, text)
            assert re.search(r"; |\bgive `|\brun `|\bneeded\b|\bwhich is not\b", text), (place, text)
