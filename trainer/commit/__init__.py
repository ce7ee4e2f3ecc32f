"""Commitments: chunks, Merkle trees, tensor and state roots."""
