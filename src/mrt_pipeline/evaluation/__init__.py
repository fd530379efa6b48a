"""How good a policy is at every budget."""
