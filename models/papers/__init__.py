"""Published models for dielectric tensors, written from the papers' equations, one file each."""
