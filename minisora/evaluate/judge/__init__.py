"""A judge without learned parts: colours, shapes, what moves where, and a verdict."""
