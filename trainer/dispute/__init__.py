"""Disputes: the true values of a segment, evidence of them, and who is right (docs/dispute.md)."""
