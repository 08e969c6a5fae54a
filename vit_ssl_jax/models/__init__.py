"""Linen modules: no config, no loss."""
