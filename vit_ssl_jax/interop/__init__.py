"""Conversion from and to the checkpoints of published code."""
