"""The Vision Transformer (Dosovitskiy et al., 2021): three verbs, any variant.

B batch, H W C image, P patch side, N tokens, D width, A heads, L layers.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from vit_ssl_jax import partition
from vit_ssl_jax.errors import UserError, check_choice
from vit_ssl_jax.models import attention, layers, readouts, stack, variants
from vit_ssl_jax.models.dropout import drop
from vit_ssl_jax.ops import patches, posemb, rope

POSEMBS = ("none", "learned", "sincos", "sincos_big_vision", "rope")
ROPE = 100.0  # base of DINOv3's rotary positions


class ViT(nn.Module):
    """Images to tokens. A class token, where there is one, is token 0 of the output.

    Registers (Darcet et al., 2024) are tokens inside alone: no output has them.
    """

    grid: tuple  # (rows, columns) of patches
    patch: int
    depth: int
    width: int
    hidden: int
    heads: int
    posemb: str  # what is added, one of POSEMBS; rotary ones are in `form`
    cls: bool  # class token
    final_norm: bool  # LayerNorm after the last block
    droppath: float  # stochastic depth of the last block
    dropout: float  # after the position table and every dense layer but qkv
    style: layers.Style
    registers: int = 0  # further tokens without a position, behind the class token
    form: layers.Form = layers.Form()

    @property
    def rope(self):
        """Base of the rotary positions of its patches, 0.0 without."""
        return self.form.rope

    @property
    def size(self):
        """(height, width) in pixels of the images that fill the grid."""
        return tuple(side * self.patch for side in self.grid)

    def setup(self):
        init, tokens = self.style.initial, self.grid[0] * self.grid[1]
        fan_in = 3 * self.patch**2
        self.patch_embed = nn.Dense(
            self.width,
            dtype=self.style.dtype,
            kernel_init=init.patch(fan_in),
            bias_init=init.patch_bias(fan_in),
            name="patch",
        )
        if self.cls:
            self.cls_token = self.param("cls", init.token, (1, 1, self.width))
        if self.posemb == "learned":
            # Row 0 belongs to the class token, as in ViT and timm.
            shape = (1, tokens + self.cls, self.width)
            self.table = self.param("posemb", init.posemb(self.width), shape)
        if self.registers:
            shape = (1, self.registers, self.width)
            self.register_tokens = self.param("registers", init.token, shape)
        self.blocks = stack.Blocks(
            self.depth,
            self.heads,
            self.hidden,
            self.style,
            self.droppath,
            self.dropout,
            self.form,
        )
        if self.final_norm:
            self.norm = layers.norm(self.style, "norm")

    def __call__(self, image, train, collect=None):
        """Encodes images: `[B H W C] -> [B N(+1) D]`; `collect` as in `encode`."""
        return self.encode(self.place(self.embed(image)), train, collect=collect)

    def readout(self, image):
        """Every block's output, normed and pooled: `[B H W C] -> [L B S D]`.

        `[..., 0, :]` is the class token, `[..., -1, :]` the mean of the patches (S is 1
        without a class token). The final norm comes before the mean, as in DINOv2.
        """
        cls, eps = self.cls, self.style.norm_eps if self.final_norm else None
        _, pooled = self(image, False, lambda x: readouts.standardize(x, cls, eps))
        if not self.final_norm:
            return pooled
        scale, bias = (self.norm.variables["params"][k] for k in ("scale", "bias"))
        return pooled * scale[None, None, None] + bias[None, None, None]

    def embed(self, image):
        """Patch embedding: `[B H W C] -> [B N D]`."""
        if any(side % self.patch for side in image.shape[1:3]):
            raise ValueError(
                f"image of {image.shape[1:3]} px isn't divisible by {self.patch=}"
            )
        return partition.pin_batch(
            self.patch_embed(patches.patchify(image, self.patch))
        )

    def place(self, tokens, grid=None, weights=None):
        """Adds the position of every patch: `[B N D] -> [B N D]` float32.

        On another `grid` (rows, columns) the table is resized: a small tile gets the
        coarse positions of a whole image (as in LOCA, 2022). Bilinearly, or by `weights`
        as in `posemb.resize`.
        """
        tokens = tokens.astype(jnp.float32)
        if self.posemb == "none":
            return tokens
        rows, cols = grid or self.grid
        if tokens.shape[1] != rows * cols:
            raise ValueError(
                f"{tokens.shape[1]} patches, but the positions are those of a grid of "
                f"{rows}x{cols}"
            )
        table = self.positions()
        if (rows, cols) != tuple(self.grid):
            table = posemb.resize(table, self.grid, (rows, cols), weights)
        return tokens + table

    def positions(self):
        """The table of the patches: `[1 N D]` float32."""
        if self.posemb == "learned":
            return self.table[:, int(self.cls) :]
        endpoint = self.posemb == "sincos_big_vision"
        return jnp.asarray(posemb.sincos(self.grid, self.width, endpoint))[None]

    def encode(self, tokens, train, valid=None, collect=None, ids=None, grid=None):
        """Blocks and final norm: `[B K D] -> [B K(+1) D]` float32.

        `valid`: bool `[B K]`, or int32 `[B]`, so many of the first. Others are never
        attended to, their own outputs are meaningless. With `collect`, a function of the
        residual stream `[B K(+1) D]`, also what it makes of every block's, `[L ...]`.
        For rotary positions, `ids [B K]`: which patches they are (None: all, in order),
        and of what `grid`, where it isn't the ViT's.
        """
        table = self.rotations(tokens, ids, grid) if self.rope else None
        tokens = jnp.concatenate([*self.prefix(tokens.shape[0]), tokens], axis=1)
        for _ in range(self.cls + self.registers):
            valid = attention.with_class_token(valid)
        if train and self.dropout:
            tokens = drop(tokens, self.make_rng("dropout"), self.dropout)
        seen = collect and (lambda x: collect(self.without_registers(x)))
        x, collected = self.blocks(tokens, train, valid, seen, table)
        x = self.norm(x) if self.final_norm else x
        x = self.without_registers(x)
        return (x, collected) if collect else x

    def prefix(self, batch):
        """Class token and registers, a list of `[B 1 D]` and `[B R D]`, as they are."""
        tokens = []
        if self.cls:
            token = self.cls_token
            if self.posemb == "learned":
                token = token + self.table[:, :1]
            tokens.append(token)
        if self.registers:
            tokens.append(self.register_tokens)
        return [jnp.broadcast_to(x, (batch, *x.shape[1:])) for x in tokens]

    def without_registers(self, x):
        """All but the registers: `[B 1+R+K D] -> [B 1+K D]`."""
        parts = x[:, : int(self.cls)], x[:, self.cls + self.registers :]
        return jnp.concatenate(parts, axis=1) if self.registers else x

    def rotations(self, tokens, ids, grid):
        """Cosines and sines of the tokens that `encode` makes: `[B 1+R+K 2 E]`."""
        table = rope.table(grid or self.grid, self.width // self.heads, self.rope)
        if ids is None and tokens.shape[1] != len(table):
            raise ValueError(
                f"{tokens.shape[1]} patches, but the rotary positions are those of "
                f"{len(table)}"
            )
        table = jnp.asarray(table)[None] if ids is None else jnp.asarray(table)[ids]
        return rope.with_still(table, self.cls + self.registers)


def make_vit(config, size, *, final_norm=True):
    """Builds a ViT from `config.vit` and the image size (H, W) in pixels.

    Raises UserError where the patch doesn't divide the image, or a value is unknown.
    """
    shape = variants.decode(config.variant)
    patch = shape["patch"]
    if any(side % patch or side < patch for side in size):
        raise UserError(
            f"config.data.size: {size[0]}x{size[1]} px is not divisible by the patch "
            f"of {patch} px of config.vit.variant={config.variant!r}"
        )
    check_choice("config.vit.posemb", config.posemb, POSEMBS)
    turned = config.posemb == "rope"
    if turned and shape["width"] // shape["heads"] % 4:
        raise UserError(
            f"config.vit.posemb: 'rope' needs heads whose width is divisible by 4; those "
            f"of config.vit.variant={config.variant!r} are not"
        )
    shape["rope"] = rope_base(config.posemb, shape["rope"])
    if config.posemb.startswith("sincos") and shape["width"] % 4:
        raise UserError(
            f"config.vit.variant: {config.variant!r}: a sine-cosine position table "
            "needs a width divisible by 4"
        )
    return ViT(
        grid=(size[0] // patch, size[1] // patch),
        posemb="none" if turned else config.posemb,
        cls=config.cls,
        final_norm=final_norm,
        droppath=config.droppath,
        dropout=config.dropout,
        style=layers.make_style(config),
        form=layers.Form(**{name: shape.pop(name) for name in variants.OF_BLOCKS}),
        **shape,
    )


def rope_base(posemb, base):
    """Base of the rotary positions by `config.vit`: the variant's, or DINOv3's for "rope"."""
    return base or (ROPE if posemb == "rope" else 0.0)


def check_pool(how, cls):
    """Raises UserError where a method pools a class token that isn't there."""
    if how == "cls" and not cls:
        raise UserError(
            "config.method.pool: 'cls' needs a class token; set config.vit.cls=True "
            "or pool='mean'"
        )


def pool(tokens, how, cls):
    """One vector an image: `[B N(+1) D] -> [B D]`, "cls" or "mean" of the patches."""
    return tokens[:, 0] if how == "cls" else tokens[:, int(cls) :].mean(axis=1)


def parameter_count(tree):
    """Number of values in a tree of arrays or shapes."""
    return sum(math.prod(x.shape) for x in jax.tree.leaves(tree))
