"""Google's own ViViT checkpoints (scenic, in Flax): read them and say what they are, without JAX, Flax or torch."""
