"""Verification by replay."""
