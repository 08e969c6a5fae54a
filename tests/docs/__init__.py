"""What the documentation says can be done, done: its commands, its Python, its links."""
