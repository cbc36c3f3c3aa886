"""The figures of the compute report."""
