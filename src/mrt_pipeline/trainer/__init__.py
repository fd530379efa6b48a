"""One update for every algorithm, the loops around it, checkpoints."""
