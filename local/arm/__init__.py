"""A small evaluator of the ARM template functions that our templates use."""
