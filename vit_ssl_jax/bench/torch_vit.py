"""The Vision Transformer in PyTorch, as timm builds it: fused qkv, fused attention.

Written out, for timm needs torchvision. B batch, N tokens, D width.
"""

import torch
import torch.nn.functional as F
from torch import nn

from vit_ssl_jax.errors import UserError
from vit_ssl_jax.models import variants


class Block(nn.Module):
    """Pre-norm transformer block: `[B N D] -> [B N D]`."""

    def __init__(self, width, hidden, heads, *, gelu, eps, dropout=0.0, droppath=0.0):
        super().__init__()
        self.heads, self.droppath = heads, droppath
        self.norm1, self.norm2 = (nn.LayerNorm(width, eps=eps) for _ in range(2))
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden),
            nn.GELU(approximate="tanh" if gelu == "tanh" else "none"),
            nn.Dropout(dropout),
            nn.Linear(hidden, width),
        )
        self.drop = nn.Dropout(dropout)

    def forward(self, x):
        x = x + self.thin(self.attend(self.norm1(x)))
        return x + self.thin(self.mlp(self.norm2(x)))

    def attend(self, x):
        """Multi-head self-attention."""
        b, n, d = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.heads, d // self.heads)
        x = F.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4).unbind(0))
        return self.out(x.transpose(1, 2).reshape(b, n, d))

    def thin(self, x):
        """Dropout and stochastic depth."""
        x = self.drop(x)
        if not self.droppath:
            return x
        keep = 1.0 - self.droppath
        return x * (x.new_empty(len(x), 1, 1).bernoulli_(keep) / keep)


class ViT(nn.Module):
    """Images to normed tokens; sizes are those of `config.vit`."""

    def __init__(self, config, size, final_norm=True):
        super().__init__()
        shape = variants.decode(config.variant)
        plain = variants.decode(config.variant.partition(",")[0])
        turned = config.posemb == "rope"
        if turned or shape != plain | {"hidden": shape["hidden"]}:
            raise UserError(
                f"config.vit.variant: {config.variant!r}, posemb={config.posemb!r}: the twin "
                "has no registers, "
                "rotary positions, LayerScale or SwiGLU"
            )
        self.width, self.patch = shape["width"], shape["patch"]
        self.grid = size[0] // self.patch, size[1] // self.patch
        self.tokens, self.cls = self.grid[0] * self.grid[1], config.cls
        self.embed = nn.Conv2d(3, self.width, self.patch, self.patch)
        if config.cls:
            self.token = nn.Parameter(torch.randn(1, 1, self.width) * 0.02)
        table = torch.randn(1, self.tokens + config.cls, self.width) * 0.02
        self.table = nn.Parameter(table, requires_grad=config.posemb == "learned")
        self.placed = config.posemb != "none"
        self.blocks = blocks(shape["depth"], self.width, config, shape)
        eps = config.norm_eps
        self.norm = nn.LayerNorm(self.width, eps=eps) if final_norm else nn.Identity()

    def forward(self, image):
        """Encodes images: `[B 3 H W] -> [B N(+1) D]`."""
        return self.encode(self.place(self.patches(image)))

    def patches(self, image):
        """Embeds patches: `[B 3 H W] -> [B N D]`."""
        return self.embed(image).flatten(2).transpose(1, 2)

    def place(self, x):
        """Adds positions."""
        return x + self.table[:, int(self.cls) :] if self.placed else x

    def encode(self, x):
        """Blocks and norm, the class token in front where there is one."""
        if self.cls:
            token = self.token + (self.table[:, :1] if self.placed else 0.0)
            x = torch.cat([token.expand(len(x), -1, -1), x], dim=1)
        return self.norm(self.blocks(x))


def blocks(depth, width, config, shape):
    """Makes `depth` blocks by `config.vit`; `shape` has `hidden` and `heads`."""
    return nn.Sequential(
        *(
            Block(
                width,
                shape["hidden"],
                shape["heads"],
                gelu=config.gelu,
                eps=config.norm_eps,
                dropout=shape.get("dropout", config.dropout),
                droppath=config.droppath * i / max(depth - 1, 1),
            )
            for i in range(depth)
        )
    )


def take(x, ids):
    """Selects tokens: `[B N D], [B K] -> [B K D]`."""
    return torch.gather(x, 1, ids[..., None].expand(-1, -1, x.shape[-1]))
