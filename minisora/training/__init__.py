"""One loop, and what it trains: the VAE, the diffusion transformer, a student of it, and the captioner."""
