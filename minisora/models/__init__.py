"""What is learned: the VAE, the diffusion transformer and the text encoder.

The module paths of this package are written into every saved pipeline (`model_index.json`), so
`minisora.models.vae`, `minisora.models.dit` and `minisora.models.text` are an on-disk format: they stay.
"""
