"""A run, or several beside each other, as one page: from files alone, without jax."""
