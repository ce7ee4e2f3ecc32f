"""Exact programs from ordinary PyTorch: capture, lowering, optimizers and fusing (docs/tracing.md)."""
