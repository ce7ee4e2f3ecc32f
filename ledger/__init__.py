"""The chain side of trainledger: contracts, deployment, transactions, events and money. Never imports torch."""

__version__ = "0.1.0"
