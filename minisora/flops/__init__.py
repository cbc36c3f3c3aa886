"""The FLOP meter: FLOPs of real passes counted three ways, their time, and the law that they follow."""
