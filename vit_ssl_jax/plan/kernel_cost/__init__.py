"""What a TPU kernel costs, from its machine code."""
