"""What the command line can do, at once: the tree of commands takes its modules and a parser to build, which nobody needs who only looks.

It shows what `connector.cli.commands` shows of itself, sign for sign, which a test holds it to.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from textwrap import wrap
from typing import TYPE_CHECKING, Final

from connector.cli import show

if TYPE_CHECKING:
    from rich.console import Console

ASKED: Final[tuple[list[str], ...]] = ([], ["--help"], ["-h"])  # the arguments that ask for it
TITLE: Final = "Qiao 桥: a connector for the Dataspace Protocol 2025-1."
NAMES_SHARE: Final = 0.35  # of the width, for the names at most
OPTIONS: Final = (("--help (-h)", "Display this message and exit."), ("--version", "Display application version."))
# Heading, and the commands below it, each with the first sentence of what it says of itself.
OVERVIEW: Final[tuple[tuple[str, tuple[tuple[str, str], ...]], ...]] = (
    (
        "Begin",
        (
            ("demo", "See a hospital and a biopharma exchange real data on this machine."),
            ("init", "Write settings, keys, our self-description and the admin token of a new connector."),
            ("check", "Check the settings, keys, certificates and the registry, and report every mistake."),
            ("run", "Run the connector until SIGTERM or Ctrl-C; SIGHUP reads registry, keys and settings again."),
        ),
    ),
    (
        "Provide and fetch data",
        (
            ("publish", "Publish datasets: those of a manifest, or, with `--id`, one data file under policies. Prints the offers."),
            ("datasets", "List what we have published, or withdraw a dataset."),
            ("templates", "List the policy templates, or show one with its parameters and what it allows and denies."),
            ("catalog", "Show what a peer offers."),
            (
                "get",
                "Fetch a dataset into a file: finds the offer, negotiates or reuses a contract, transfers, checks, signs for "
                "it, completes.",
            ),
            ("pulls", "List the orders that `connector get` made, or follow one to its end."),
            (
                "cancel",
                "End an order of `connector get`, and the negotiation or transfer that it has begun. What has come stays for the next one.",
            ),
        ),
    ),
    (
        "Contracts and transfers",
        (
            ("negotiate", "Negotiate a contract, and wait until it is agreed, refused, or an operator of either side has to decide."),
            ("negotiations", "List the negotiations, newest first; `negotiations show PID` shows one in full."),
            ("transfers", "List the transfers, newest first, or do something with one; `connector get` does all of it by itself."),
            (
                "agreements",
                "List the agreements, newest first; `agreements show ID` shows one, `agreements close ID` ends it and all "
                "that runs under it, `agreements perform ID --duty POINTER` records that a duty of it was done. `agreements "
                "release ID` writes off what its transfers that ended had not signed for: else that is no credit of it for a "
                "day.",
            ),
            ("usage", "Show what was used under an agreement, by whom it is attested, and what it costs so far."),
            (
                "invoice",
                "Show or write the invoice of an agreement: both sides come to the same one, down to its digest, where "
                "receipts were signed.",
            ),
            (
                "statement",
                "Have both sides sign what each transfer had come to by the end of a period; both statements are on record, and evidence.",
            ),
            ("evidence", "Export what proves an agreement into one file, or verify such a file, which needs nothing else."),
            ("show", "Show a negotiation or a transfer in full, with its reasons and its record."),
            ("explain", "Show why a negotiation or a transfer was decided as it was, on both sides."),
            (
                "approve",
                "Agree to the negotiation that waits for us. Ends with 1 where that ended it: what is not permitted any more "
                "is not agreed to.",
            ),
            ("counter", "Answer a request or an offer with other terms."),
            ("terminate", "End a negotiation or a transfer; a stream of it is cut."),
        ),
    ),
    (
        "Terms before anybody meets them",
        (
            ("lint", "Check a policy, and say what it means in plain words."),
            ("simulate", "Show our catalog as somebody else would see it."),
            ("what-if", "Show who would lose or gain access by other terms."),
        ),
    ),
    (
        "Operate",
        (
            ("participants", "List the participants of the registry."),
            ("keys", "List the keys that we sign with, make a new one, or end an old one."),
            ("token", "Make another admin token, such as for one that was lost. The one before ends once the connector reads it."),
            ("reload", "Let the running connector read registry, keys and settings again."),
            (
                "ledger",
                "Show the ledger and who has witnessed it, compute all of it anew, have a participant cosign it, or trust "
                "one's ledger again.",
            ),
            (
                "erase",
                "Take away for good what an event of the record says in detail; its entry in the ledger, and every proof of "
                "it, stays valid.",
            ),
            ("dead-letters", "List the messages that could not be delivered."),
            ("replay", "Deliver a dead letter again."),
            ("discard", "Drop a dead letter; what it was about ends by its deadline, or by `connector terminate`."),
        ),
    ),
    ("Options", OPTIONS),
)


def show_overview(_arguments: Sequence[str] = ()) -> int:
    """Print every command with what it does, and return the exit code."""
    from rich.console import Console

    show.take_anything()
    try:
        print_on(Console())
        sys.stdout.flush()
    except OSError as error:
        show.unwritten(error)
        return 1
    return 0


def print_on(console: Console) -> None:
    """Print every command with what it does."""
    from rich.box import ROUNDED
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    console.print(Text("Usage: ", style="bold") + Text("connector COMMAND\n", style="bold"))
    console.print(Text(f"{TITLE}\n"))
    width = math.ceil(console.width * NAMES_SHARE)
    for heading, commands in OVERVIEW:
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column(style="cyan", max_width=width)
        table.add_column(overflow="fold")
        for name, does in commands:
            table.add_row("\n".join(wrap(name, width, subsequent_indent="  ", break_on_hyphens=False)), Text(does))
        console.print(Panel(table, box=ROUNDED, title=heading, title_align="left", padding=(0, 1)))
