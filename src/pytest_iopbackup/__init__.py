"""pytest plugin that proves PostgreSQL backups made with pgBackRest restore exactly the rows they should."""

__version__ = "0.1.0"
