"""Many workers on many machines, kept going by Ray (docs/fleet.md)."""
