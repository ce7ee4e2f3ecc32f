"""Auditors who are drawn by stake (docs/auditors.md): records of audits, and the client of their contract."""
