"""How good a video is and what its model has learned: the shapes world judged exactly, fidelity, curves."""
