"""A compiled program, read: instructions, arrays, parts, buffers, collectives."""
