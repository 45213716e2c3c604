"""The self-test of a machine: what training promises, and how fast it is, in four minutes."""
