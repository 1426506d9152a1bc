"""What a worker's hour costs, and by which price list."""

from __future__ import annotations

from dataclasses import dataclass

from conf.price_book import StoragePrice


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """The price of one worker: ``nano_per_hour`` is in 1e-9 currency units an hour, None where no
    price is known; ``unpriced`` says why then, and is "" otherwise.

    ``share``: the part of its machine that it pays, such as 1/8; that is in the price already.
    ``storage``: what its requests to the output's store cost; None where no price is known.
    ``digest`` tells two price lists of one version apart. What is not known of the machine is None.
    """

    nano_per_hour: int | None
    currency: str
    version: str
    digest: str
    provider: str | None
    region: str | None
    instance_type: str | None
    purchase_option: str | None
    share: str = "1"
    storage: StoragePrice | None = None
    unpriced: str = ""
