"""Worlds to play: the arena with its exact truth, and recordings of it from which a model learns by looking alone."""
