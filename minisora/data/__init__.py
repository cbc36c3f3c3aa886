"""Where clips come from: a procedural world, folders of files, torchvision sets, and the latents of them."""
