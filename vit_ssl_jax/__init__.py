"""Self-supervised pre-training of Vision Transformers in JAX."""

__version__ = "0.1.0"


def load(run, *, size=None):
    """Loads the encoder of a run: see `vit_ssl_jax.encoder.load`."""
    from vit_ssl_jax import encoder  # here because jax is slow to import

    return encoder.load(run, size=size)
