"""Deterministic training segments. Runs with nothing but torch and numpy installed."""
