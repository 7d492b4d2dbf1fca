"""The running system under test: its hosts, services and places, and the two kinds that can run it."""
