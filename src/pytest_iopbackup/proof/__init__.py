"""Whether a database holds exactly the expected rows, objects and sequences."""
