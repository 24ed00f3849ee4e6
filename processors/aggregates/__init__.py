"""What is computed of a field in a window: columns of state, one kind of accumulator a module."""
