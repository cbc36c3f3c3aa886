"""`python -m minisora`, which is also what `accelerate launch -m minisora` runs."""

from minisora.cli import main

main()
