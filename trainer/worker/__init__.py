"""The worker: looks for tasks, claims, trains, submits, and says what it does and why."""
