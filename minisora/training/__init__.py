"""One loop, two small tasks: the VAE, then the diffusion transformer."""
