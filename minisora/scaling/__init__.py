"""The scaling ladder: the same model at many sizes and budgets, a law fitted to it, and the figure of Sora's report."""
