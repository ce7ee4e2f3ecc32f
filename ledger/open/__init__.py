"""Open tasks (docs/open-tasks.md): records of tasks, rounds, slots and inquiries, and the client of their contracts."""
