"""The machine: what it has, what fits it, how fast it is, and where weights lie on it."""
