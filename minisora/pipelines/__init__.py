"""Sampling: `MiniSoraPipeline` and the ways to load one. Never imports training."""
