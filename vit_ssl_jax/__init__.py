"""Self-supervised pre-training of Vision Transformers in JAX."""

__version__ = "0.1.0"


def load(run, **settings):
    """Loads the encoder of a run or of a file: see `vit_ssl_jax.encoder.load`."""
    from vit_ssl_jax import encoder  # here because jax is slow to import

    return encoder.load(run, **settings)
