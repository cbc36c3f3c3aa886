"""How good a video is: the shapes world judged exactly, and fidelity of reconstructions."""
