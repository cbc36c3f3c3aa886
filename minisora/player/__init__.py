"""Where a person plays a world: in the terminal, or on a page in the browser of this machine."""
