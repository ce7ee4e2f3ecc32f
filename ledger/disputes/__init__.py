"""Disputes as the chain sees them: positions, moves, and a client of the game. docs/dispute.md has the rules."""
