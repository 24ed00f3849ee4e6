"""Rules: what a file says, checked, and the expressions in it."""
