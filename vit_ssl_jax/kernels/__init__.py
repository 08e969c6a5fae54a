"""Fused TPU kernels of a transformer block, each with its gradient.

Arrays are flat: row `b * P + n` is token n of image b, P the padded number of tokens
(a multiple of 8). R = B * P rows, D width, A heads, E = D / A head width, F MLP width.
What the backward pass needs is kept in buffers with a layer axis `[L R ...]` in front:
a kernel writes its own layer of the buffer and leaves the others alone, so that a scan
over layers copies nothing.
"""
