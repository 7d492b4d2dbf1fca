"""Proves many recovery points of one repository: every kind of target at its edges, or a sweep over all its WAL."""
