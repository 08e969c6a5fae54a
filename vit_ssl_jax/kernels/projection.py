"""LayerNorm, then a dense layer: one pass over the rows, and one back."""

import functools

import jax
import jax.numpy as jnp

from vit_ssl_jax.kernels import calls, parts


def project(layer, x, weights, out, *, tile, eps, vmem=calls.VMEM, interpret=False):
    """Computes a layer's `LayerNorm(x) @ kernel + bias`: `[L R D] -> [L R F]` bfloat16.

    `weights`: scale and offset `[L 1 D]` float32, the kernel transposed `[L F D]`
    bfloat16, bias `[L 1 F]`.
    """
    _, count, width = x.shape
    return calls.call(
        functools.partial(_forward, eps=eps),
        name="project",
        grid=count // tile,
        layer=layer,
        inputs=[
            (x, calls.layer_rows(tile, width, 1)),
            *((w, calls.weight(w)) for w in weights),
        ],
        buffers=[(out, calls.layer_rows(tile, out.shape[-1]))],
        vmem=vmem,
        interpret=interpret,
    )[0]


def project_backward(
    layer, x, weights, grad, skip, *, tile, eps, vmem=calls.VMEM, interpret=False
):
    """Gradients: of x `[R D]` with `skip [R D]` added, then those of the weights.

    `x [L R D]` is the layer's input, `grad [R F]` bfloat16 that of its output.
    """
    count, width = skip.shape
    wide = grad.shape[-1]
    return calls.call(
        functools.partial(_backward, eps=eps),
        name="project_backward",
        grid=count // tile,
        layer=layer,
        inputs=[
            (x, calls.layer_rows(tile, width, 1)),
            *((w, calls.weight(w)) for w in weights[:3]),
            (grad, calls.rows(tile, wide)),
            (skip, calls.rows(tile, width)),
        ],
        outputs=[
            (jax.ShapeDtypeStruct(skip.shape, skip.dtype), calls.rows(tile, width)),
            calls.total((1, width)),
            calls.total((1, width)),
            calls.total((wide, width)),
            calls.total((1, wide)),
        ],
        vmem=vmem,
        interpret=interpret,
    )


def _forward(x_ref, scale_ref, offset_ref, kernel_ref, bias_ref, out_ref, *, eps):
    y = parts.standardize(x_ref[...], eps)[0] * scale_ref[...] + offset_ref[...]
    y = parts.dot(y.astype(out_ref.dtype), kernel_ref[...], 1, 1) + bias_ref[...]
    out_ref[...] = y.astype(out_ref.dtype)


def _backward(
    x_ref,
    scale_ref,
    offset_ref,
    kernel_ref,
    grad_ref,
    skip_ref,
    out_ref,
    scale_grad,
    offset_grad,
    kernel_grad,
    bias_grad,
    *,
    eps,
):
    calls.zero_at_start(scale_grad, offset_grad, kernel_grad, bias_grad)
    unit, rate = parts.standardize(x_ref[...], eps)
    y = (unit * scale_ref[...] + offset_ref[...]).astype(grad_ref.dtype)
    kernel_grad[...] += parts.dot(grad_ref[...].T, y)
    bias_grad[...] += grad_ref[...].astype(jnp.float32).sum(axis=0, keepdims=True)
    dy = parts.dot(grad_ref[...], kernel_ref[...])
    scale_grad[...] += (dy * unit).sum(axis=0, keepdims=True)
    offset_grad[...] += dy.sum(axis=0, keepdims=True)
    dx = parts.standardize_backward(unit, rate, dy * scale_ref[...])
    out_ref[...] = skip_ref[...] + dx
