"""The objectives in PyTorch: modules that turn a batch of images into a loss.

Images `[B 3 H W]` are standardised floats, as a data loader gives them, augmented where
the published code augments there (RelViT's patches, mixed images). Random masks cost
what the published code pays for them inside the step, or nothing where its data loader
draws them (I-JEPA, MaskFeat): then they are fixed. Weights are random.
"""

import copy

import torch
import torch.nn.functional as F
from torch import nn

from vit_ssl_jax.bench import published_masks, torch_hog
from vit_ssl_jax.bench.torch_vit import ViT, blocks, take


def narrow(config, method, part):
    """Depth, width, and sizes of the blocks of a decoder or predictor."""
    width, heads = method[f"{part}_width"], method[f"{part}_heads"]
    shape = dict(hidden=4 * width, heads=heads, dropout=0.0)
    return blocks(method[f"{part}_depth"], width, config.vit, shape)


class Supervised(nn.Module):
    """Classification with soft labels."""

    def __init__(self, config):
        super().__init__()
        method, self.vit = config.method, ViT(config.vit, config.data.size)
        self.mean, self.sigmoid = method.pool == "mean", method.loss == "sigmoid"
        width, middle = self.vit.width, method.representation
        eps = config.vit.norm_eps
        self.head = nn.Sequential(
            nn.LayerNorm(width, eps=eps) if self.mean else nn.Identity(),
            *([nn.Linear(width, middle), nn.Tanh()] if middle else []),
            nn.Linear(middle or width, config.data.num_classes),
        )
        shape = config.batch_size, config.data.num_classes
        self.register_buffer("labels", torch.rand(shape).softmax(-1))

    def forward(self, image):
        x = self.vit(image)
        x = x[:, int(self.vit.cls) :].mean(1) if self.mean else x[:, 0]
        logits = self.head(x).float()
        if self.sigmoid:
            loss = F.binary_cross_entropy_with_logits(
                logits, self.labels, reduction="sum"
            )
            return loss / len(logits)
        return F.cross_entropy(logits, self.labels)


class MAE(nn.Module):
    """Reconstruction of the pixels of hidden patches."""

    def __init__(self, config):
        super().__init__()
        method, self.vit = config.method, ViT(config.vit, config.data.size)
        self.kept = int(self.vit.tokens * (1 - method.mask_ratio))
        width, self.standardize = method.decoder_width, method.norm_pixels
        self.embed = nn.Linear(self.vit.width, width)
        self.hidden_token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        places = torch.randn(1, self.vit.tokens + self.vit.cls, width)
        self.register_buffer("places", places)
        self.decoder = narrow(config, method, "decoder")
        self.norm = nn.LayerNorm(width, eps=config.vit.norm_eps)
        self.head = nn.Linear(width, 3 * self.vit.patch**2)

    def forward(self, image):
        vit, n = self.vit, self.vit.tokens
        order = torch.rand(len(image), n, device=image.device).argsort(1)
        back, keep = order.argsort(1), order[:, : self.kept]
        x = self.embed(vit.encode(take(vit.place(vit.patches(image)), keep)))
        front, x = x[:, : int(vit.cls)], x[:, int(vit.cls) :]
        fill = self.hidden_token.to(x.dtype).expand(len(x), n - self.kept, -1)
        x = torch.cat([front, take(torch.cat([x, fill], 1), back)], 1) + self.places
        out = self.head(self.norm(self.decoder(x)))[:, int(vit.cls) :].float()
        errors = (out - self.targets(image)).square().mean(-1)
        hidden = (back >= self.kept).float()
        return (errors * hidden).sum() / hidden.sum()

    def targets(self, image):
        """Pixels of all patches `[B N F]`, as the published code has them."""
        (b, c), p = image.shape[:2], self.vit.patch
        x = image.reshape(b, c, self.vit.grid[0], p, self.vit.grid[1], p)
        x = x.permute(0, 2, 4, 3, 5, 1).reshape(b, self.vit.tokens, -1)
        if not self.standardize:
            return x
        return (x - x.mean(-1, True)) / (x.var(-1, keepdim=True) + 1e-6).sqrt()


class IJEPA(nn.Module):
    """Prediction of a teacher's features; masks as large as the published ones."""

    def __init__(self, config):
        super().__init__()
        method, self.vit = config.method, ViT(config.vit, config.data.size)
        self.teacher = copy.deepcopy(self.vit).requires_grad_(False)
        self.blocks_, width = method.num_targets, method.predictor_width
        self.rate = 1.0 - method.ema_start
        self.embed = nn.Linear(self.vit.width, width)
        self.target_token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.register_buffer("places", torch.randn(1, self.vit.tokens, width))
        self.predictor = narrow(config, method, "predictor")
        self.norm = nn.LayerNorm(width, eps=config.vit.norm_eps)
        self.head = nn.Linear(width, self.vit.width)
        kept, wanted = published_masks.token_counts(
            method, self.vit.grid, config.batch_size
        )
        self.register_buffer("context", self.draw(config.batch_size, kept))
        self.register_buffer(
            "target", self.draw(config.batch_size * self.blocks_, wanted)
        )

    def draw(self, count, tokens):
        """Draws ids of `tokens` tokens: `[count tokens]`."""
        return torch.rand(count, self.vit.tokens).argsort(1)[:, :tokens]

    def forward(self, image):
        vit, times = self.vit, self.blocks_
        with torch.no_grad():
            features = F.layer_norm(self.teacher(image), (vit.width,))
            wanted = take(features.repeat_interleave(times, 0), self.target)
        places = self.places.expand(len(image), -1, -1)
        x = vit.encode(take(vit.place(vit.patches(image)), self.context))
        x = self.embed(x) + take(places, self.context)
        queries = take(places.repeat_interleave(times, 0), self.target)
        x = torch.cat([x.repeat_interleave(times, 0), queries + self.target_token], 1)
        x = self.norm(self.predictor(x)[:, -self.target.shape[1] :])
        return F.smooth_l1_loss(self.head(x).float(), wanted.float())

    def after(self):
        """Moves the teacher, after the optimiser."""
        mine, theirs = list(self.vit.parameters()), list(self.teacher.parameters())
        torch._foreach_lerp_(theirs, [p.detach() for p in mine], self.rate)


class RelViT(nn.Module):
    """Relations, distances, angles and positions of patches."""

    def __init__(self, config):
        super().__init__()
        method, self.vit = config.method, ViT(config.vit, config.data.size)
        n, width, b = self.vit.tokens, self.vit.width, config.batch_size
        counts = dict(relations=9, distances=1, angles=1)
        self.counts = {task: c for task, c in counts.items() if method[task]}
        self.pairs = nn.ModuleDict(
            {
                task: nn.Linear(width, 2 * c * (width // c), bias=False)
                for task, c in self.counts.items()
            }
        )
        self.positions = nn.Linear(width, n) if method.positions else None
        self.register_buffer("relation", torch.randint(9, (b, n, n)))
        self.register_buffer("number", torch.rand(b, n, n))
        self.register_buffer("order", torch.rand(b, n).argsort(1))

    def forward(self, image):
        x, loss = self.vit(image)[:, int(self.vit.cls) :], 0.0
        b, n, width = x.shape
        for task, count in self.counts.items():
            size = width // count
            both = self.pairs[task](x).reshape(b, n, 2, count, size)
            query, key = both.permute(2, 0, 3, 1, 4).unbind(0)
            scores = (query @ key.transpose(-2, -1)).float() * size**-0.5
            if task == "relations":
                loss = loss + F.cross_entropy(scores, self.relation)
            else:
                loss = loss + F.mse_loss(scores[:, 0], self.number)
        if self.positions is not None:
            scores = self.positions(x).float().transpose(1, 2)
            loss = loss + F.cross_entropy(scores, self.order)
        return loss


class MaskFeat(nn.Module):
    """Regression of hidden patches' oriented gradients."""

    def __init__(self, config):
        super().__init__()
        method, self.vit = config.method, ViT(config.vit, config.data.size)
        self.hog = torch_hog.HOG(method.bins, method.cell, method.window)
        self.side = self.vit.patch // method.cell
        features = 3 * method.bins * self.side**2
        self.hidden_token = nn.Parameter(torch.randn(1, 1, self.vit.width) * 0.02)
        self.head = nn.Linear(self.vit.width, features)
        noise = torch.rand(config.batch_size, self.vit.tokens)
        self.register_buffer("hide", noise < method.mask_ratio)

    def forward(self, image):
        vit = self.vit
        with torch.no_grad():
            cells = self.hog(image)
            b, _, _, (rows, cols), k = *cells.shape[:3], vit.grid, self.side
            cells = cells.reshape(b, -1, rows, k, cols, k).permute(0, 2, 4, 1, 3, 5)
            targets = cells.reshape(b, vit.tokens, -1)
        x = vit.patches(image)
        x = torch.where(self.hide[..., None], self.hidden_token.to(x.dtype), x)
        out = self.head(vit.encode(vit.place(x))[:, int(vit.cls) :]).float()
        errors = (out - targets).square().mean(-1)
        return (errors * self.hide).sum() / self.hide.sum()


METHODS = dict(
    supervised=Supervised, mae=MAE, ijepa=IJEPA, relvit=RelViT, maskfeat=MaskFeat
)
