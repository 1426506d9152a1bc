"""``imagemill prices``: show a price book."""

from __future__ import annotations

from collections.abc import Iterator

from cluster.money import as_decimal
from conf.price_book import PriceBook, read_book


def book_lines(name: str) -> list[str]:
    """A price book for the terminal.

    Raises:
        ConfigError: there is none, or it is wrong.
    """
    book = read_book(name)
    since = book.effective_from or "ever"
    until = f" up to {book.effective_until}" if book.effective_until else ""
    return [
        f"{name}: prices {book.version} in {book.currency}, since {since}{until}; digest "
        f"{book.digest}",
        *_instances(book),
        *(
            f"{entry.url}: {_amount(entry.nano_per_gb_month)} a GB-month, "
            f"{_amount(entry.nano_per_1000_writes)} for 1,000 writes, "
            f"{_amount(entry.nano_per_1000_reads)} for 1,000 reads, "
            f"{_amount(entry.nano_per_gb_egress)} a GB read"
            for entry in book.storage
        ),
    ]


def _instances(book: PriceBook) -> Iterator[str]:
    for entry in book.instances:
        names = (entry.provider, entry.zone or entry.region, entry.instance_type)
        where = " ".join(name for name in names if name) or "any machine"
        option = f" {entry.purchase_option}" if entry.purchase_option else ""
        shares = [
            f"{count:g} {what}"
            for count, what in ((entry.gpus, "GPU"), (entry.vcpus, "vCPU"))
            if count
        ]
        if entry.shared:
            shares.append("shared by its workers")
        shared = f" ({', '.join(shares)})" if shares else ""
        yield f"{where}{option}: {_amount(entry.nano_per_hour)} an hour{shared}"


def _amount(nano: int) -> str:
    return f"{as_decimal(nano).normalize():f}"
