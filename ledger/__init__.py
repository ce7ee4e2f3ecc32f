"""The chain side of trainledger: contracts, deployment, transactions, events and money. Never imports torch."""

from ledger._pairings_later import put_off_pairings

__version__ = "0.1.0"

put_off_pairings()
