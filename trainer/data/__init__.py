"""Corpora, tokenizers, data sets and batches."""
