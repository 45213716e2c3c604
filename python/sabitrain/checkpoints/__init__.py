"""Everything a run leaves on the disk and goes on from."""
