"""Whatever can report trouble: the stack's named checks, its health checks, pgBackRest's own commands, a restore."""
