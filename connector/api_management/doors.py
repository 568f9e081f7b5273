"""What the calls of the management listener are made of: the use cases behind it, as `app` hands them over."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from connector.control.catalog import PeerCatalogs
from connector.control.journal import Feed, Journal
from connector.control.operate import Operations
from connector.control.outbox import Outbox
from connector.control.publish import Publishing
from connector.control.pulls import Pulls
from connector.control.simulate import Simulation
from connector.control.steps import DeadLetters
from connector.control_billing.bills import Bills
from connector.ledger.book import Book
from connector.odrl_forms.drafts import Examined, Form
from connector.odrl_forms.locale_forms import Language
from connector.odrl_forms.template_files import Template
from connector.ports import Identity, Store
from connector.values import Value

Examine = Callable[[bytes | list[Any], Form, Language, float], Examined]


class Doors(Value):
    """The use cases behind the API."""

    store: Store
    journal: Journal
    feed: Feed
    outbox: Outbox
    letters: DeadLetters
    operations: Operations
    catalogs: PeerCatalogs
    publishing: Publishing
    pulls: Pulls
    simulation: Simulation
    library: Callable[[], Mapping[str, Template]]
    examine: Examine
    identity: Identity
    reload: Callable[[], Awaitable[list[str]]]
    about: dict[str, Any]
    book: Book
    bills: Bills
