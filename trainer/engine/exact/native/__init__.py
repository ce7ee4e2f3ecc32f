"""C that every compiled program contains: words and folds, products, threads (docs/fast-path.md)."""
