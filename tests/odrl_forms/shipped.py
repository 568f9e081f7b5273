"""The profile packs and templates that the product ships, read once for the tests of this folder."""

from functools import lru_cache

from connector.odrl import Options
from connector.odrl_forms.template_files import Template
from connector.vocabulary import POLICY_PLACES, read_profiles, read_template_library

POLICIES = POLICY_PLACES[1]


@lru_cache(maxsize=1)
def options() -> Options:
    return Options(profiles=read_profiles())


@lru_cache(maxsize=1)
def library() -> dict[str, Template]:
    return read_template_library()
