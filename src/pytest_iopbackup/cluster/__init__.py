"""PostgreSQL's and pgBackRest's verbs, spoken on a stack's hosts."""
