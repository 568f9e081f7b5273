"""The arrows between the management listener and its parts go one way."""

import ast
from pathlib import Path

import pytest

import connector.api
import connector.api_management
from connector.api.management_api import ManagementApi

LISTENER = ManagementApi.__module__
PARTS = sorted(path for package in (connector.api, connector.api_management) for path in Path(package.__path__[0]).glob("*_api.py"))


@pytest.mark.parametrize("path", [path for path in PARTS if path.stem != LISTENER.rpartition(".")[2]], ids=lambda path: path.stem)
def test_a_part_of_the_management_listener_is_made_of_doors_and_does_not_know_the_listener(path: Path):
    named = {node.module for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)}
    assert LISTENER not in named
    if path.parent.name == "api_management" and path.stem != "index_api":  # it tells of the others, and does nothing itself
        assert "connector.api_management.doors" in named
