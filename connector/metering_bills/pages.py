"""An invoice as a table (CSV, RFC 4180) and as a page to print (HTML). Pure; ids come from peers, so nothing of them is taken as markup or
as a formula."""

from __future__ import annotations

from fractions import Fraction
from html import escape
from typing import Any, Final

from connector.metering_bills.invoice import Invoice

COLUMNS: Final = (
    "agreement", "dataset", "provider", "consumer", "from", "to", "line", "unit", "unit_price", "currency", "counted", "quantity", "per",
    "attested", "amount", "digest",
)  # fmt: skip
TOTAL: Final = "total"
NOT_IN_IT: Final = "left out"
NOT_OVER: Final = "preliminary"
# What a spreadsheet runs if a text begins with it, as it is written in full width too.
FORMULAS: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
NUMBERS: Final = frozenset({"unit_price", "quantity", "per", "amount"})
ATTESTED: Final = {
    "both": "both sides",
    "provider-only": "provider only, not signed by the consumer",
    "agreed": "the agreement",
}
WORD: Final = {
    "both": "known to both sides, as it was signed",
    "provider-only": "the provider’s word alone: nothing that both sides have says it",
    "consumer-only": "the consumer’s word alone: nothing that both sides have says it",
}
ALONE: Final = "Lines marked “provider only” rest on the provider’s own count: the consumer has signed no receipt for them."
SECONDS_ALONE: Final = "of which the provider alone has counted"
LEFT_OUT: Final = "Not in this invoice: what the provider alone has counted of transfers for which the consumer has signed nothing,"
PRELIMINARY: Final = (
    "Preliminary: the period is not over. What is used until its end is not in it yet, and of a day that is not over what the provider"
    " alone has counted may become more. Ask again once it is over: then it stays as it is."
)
DISPUTED: Final = "Disputed: the two sides have signed what contradicts itself about"
PLACES_SHOWN: Final = 6  # of a quantity that has no end in decimals: minutes
STYLE: Final = """
body { font: 14px/1.45 system-ui, sans-serif; color: #111; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; } th, td { text-align: left; padding: .3rem .5rem; border-bottom: 1px solid #ccc; }
th { font-weight: 600; } td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
tr.total td { border-top: 2px solid #111; border-bottom: 0; font-weight: 600; }
tr.alone td { background: #fff4d6; }
code { font: 12px/1.4 ui-monospace, monospace; overflow-wrap: anywhere; unicode-bidi: isolate; direction: ltr; }
@page { margin: 15mm; }
@media print {
body { margin: 0; padding: 0; max-width: none; } tr { break-inside: avoid; }
h2 { break-after: avoid; } thead { display: table-header-group; }
tr.alone td { print-color-adjust: exact; -webkit-print-color-adjust: exact; } tr.total { break-before: avoid; }
}
"""


def as_csv(invoice: Invoice) -> str:
    """One row for each line and one for the total, under a header, and behind the total one for what is left out of it, if anything is,
    and one that says that it is preliminary, if it is; ended by CRLF."""
    said = invoice.to_json()
    about = {name: said[name] for name in ("agreement", "dataset", "provider", "consumer", "from", "to", "currency", "digest")}
    rows = [about | line | {"line": line["price"]} for line in said["lines"]]
    rows.append(about | {"line": TOTAL, "attested": "disputed" if invoice.disputed else said["attested"], "amount": said["total"]})
    if (left := said.get("left_out")) is not None:
        rows.append(about | {"line": NOT_IN_IT, "to": left["to"], "attested": left["attested"], "amount": left["amount"]})
    if invoice.preliminary:
        rows.append(about | {"line": NOT_OVER})
    table = [",".join(COLUMNS), *(",".join(_cell(name, row.get(name)) for name in COLUMNS) for row in rows)]
    return "".join(f"{row}\r\n" for row in table)


def as_html(invoice: Invoice) -> str:
    """A page that stands alone: no script, nothing that is loaded, in English."""
    said = invoice.to_json()
    currency = said["currency"]
    facts = [
        ("Provider", said["provider"]),
        ("Consumer", said["consumer"]),
        ("Agreement", said["agreement"]),
        ("Agreement (SHA-256)", said["agreement_digest"]),
        ("Dataset", said["dataset"]),
        ("Period", f"from {said['from']} up to {said['to']}"),
        ("Rounding", f"{said['rounding']}, at the minor unit of {currency}; 1 MB is 1,000,000 bytes, a minute is 60 seconds"),
        ("Digest (SHA-256)", said["digest"]),
    ]
    if (closed := said.get("closed")) is not None:
        facts.append(("Closed", f"{closed['at']} by {closed['by']}; this instant is {WORD[closed['attested']]}"))
    lines = "".join(_line(line, currency) for line in said["lines"]) or '<tr><td colspan="5">Nothing was used.</td></tr>'
    flows = "".join(_flow(flow) for flow in said["flows"])
    alone = any(row["attested"] == "provider-only" for row in (*said["lines"], *said["flows"]))
    warning = "" if not alone else f"<p><strong>{ALONE}</strong></p>"
    if invoice.preliminary:
        warning += f"<p><strong>{PRELIMINARY}</strong></p>"
    if invoice.disputed:
        warning += f"<p><strong>{DISPUTED} {', '.join(f'<code>{_shown(pid)}</code>' for pid in invoice.disputed)}</strong></p>"
    if (left := said.get("left_out")) is not None:
        warning += f"<p><strong>{LEFT_OUT} {escape(_left_out(left, currency))}</strong></p>"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>Invoice {_shown(said['agreement'])}</title><style>{STYLE}</style></head><body>\n<h1>Invoice</h1>\n<table>"
        + "".join(f'<tr><th scope="row">{escape(name)}</th><td><code>{_shown(value)}</code></td></tr>' for name, value in facts)
        + '</table>\n<h2>What is owed</h2>\n<table><thead><tr><th>Price</th><th class="n">Unit price</th><th class="n">Quantity</th>'
        f'<th>Attested by</th><th class="n">Amount</th></tr></thead>{lines}<tr class="total"><td colspan="4">Total</td>'
        f'<td class="n">{escape(said["total"])} {escape(currency)}</td></tr></table>\n{warning}\n<h2>What was transferred</h2>\n'
        '<table><thead><tr><th>Transfer</th><th>Attested by</th><th class="n">Bytes</th><th class="n">Records</th><th class="n">Calls</th>'
        f'<th class="n">Time</th><th>Last receipt</th></tr></thead>{flows}</table>\n</body></html>\n'
    )


def quantity(of: int, per: int) -> str:
    """So many of a unit as people read it: 1500000 bytes of megabytes are `1.5`; what has no end is cut behind six places."""
    number = Fraction(of, per)
    whole, rest = divmod(abs(number.numerator) * 10**PLACES_SHOWN // number.denominator, 10**PLACES_SHOWN)
    places = f".{rest:0{PLACES_SHOWN}d}".rstrip("0").rstrip(".")
    return f"{'-' if number < 0 and (whole or places) else ''}{whole:,}{places}"


def _shown(id: str) -> str:
    """An id as text of a page. What nobody sees in it, such as what turns round the order of letters, is written as its number: two ids
    that look the same would be two."""
    return escape("".join(each if each.isprintable() else f"\\u{ord(each):04x}" for each in id))


def _cell(name: str, value: Any) -> str:
    text = "" if value is None else str(value)
    if name not in NUMBERS and text.startswith(FORMULAS):
        text = f"'{text}"
    return '"' + text.replace('"', '""') + '"' if any(character in text for character in ',"\r\n') else text


def _line(line: dict[str, Any], currency: str) -> str:
    unit, band = line["unit"], line["band"] or [0, None]
    beyond = f" beyond {quantity(band[0], line['per'])}" if band[0] else ""
    upto = f" up to {quantity(band[1], line['per'])}" if band[1] is not None else ""
    alone = ' class="alone"' if line["attested"] == "provider-only" else ""
    return (
        f"<tr{alone}><td>per {escape(unit)}{beyond}{upto}<br><code>{escape(line['price'])}</code></td>"
        f'<td class="n">{escape(line["unit_price"])} {escape(currency)}</td><td class="n">{quantity(line["quantity"], line["per"])}</td>'
        f'<td>{escape(ATTESTED[line["attested"]])}</td><td class="n">{escape(line["amount"])} {escape(currency)}</td></tr>'
    )


def _left_out(left: dict[str, Any], currency: str) -> str:
    known = ((name, left["counts"][name]) for name in ("bytes", "records", "calls"))
    counts = ", ".join(f"{number:,} {name if number > 1 else name.removesuffix('s')}" for name, number in known if number)
    return f"{counts}: {left['amount']} {currency}. An invoice up to {left['to']} has it, and changes no more once that instant is past."


def _flow(flow: dict[str, Any]) -> str:
    counts, signed = flow["counts"], flow["receipt"]
    receipt = f"{flow['sequence']}: <code>{escape(signed)}</code>" if signed else "none"
    alone = "" if signed else ' class="alone"'
    numbers = "".join(f'<td class="n">{counts[name]:,}</td>' for name in ("bytes", "records", "calls"))
    beyond = f", {SECONDS_ALONE} {_seconds(flow['beyond'])}" if "beyond" in flow else ""
    return (
        f"<tr{alone}><td><code>{_shown(flow['transfer'])}</code></td><td>{escape(ATTESTED[flow['attested']])}</td>{numbers}"
        f'<td class="n">{_seconds(counts)}{beyond}</td><td>{receipt}</td></tr>'
    )


def _seconds(counts: dict[str, int]) -> str:
    """The time in which data flowed, to the microsecond, as minutes are billed."""
    return f"{quantity(counts['us'], 1_000_000)} s"
