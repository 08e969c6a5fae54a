"""Pure array functions on jax and numpy."""
