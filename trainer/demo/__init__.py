"""The demonstration: the whole life of a training task on a local chain, with the product's own commands."""
