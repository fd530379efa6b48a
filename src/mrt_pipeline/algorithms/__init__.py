"""Credit assignments, one file each."""
