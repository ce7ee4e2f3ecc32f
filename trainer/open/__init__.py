"""Open tasks: states however they were made, paid by what they are shown to improve (docs/open-tasks.md)."""
