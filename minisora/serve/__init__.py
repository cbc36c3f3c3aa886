"""Pages served to the browser of this machine: closed to every other page and machine. `guard` has the rules."""
