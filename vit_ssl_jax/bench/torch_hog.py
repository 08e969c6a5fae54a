"""Oriented gradients in PyTorch, operation by operation as SlowFast's layer has them."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from vit_ssl_jax.ops import hog


class HOG(nn.Module):
    """Histograms of cells: `[B C H W] -> [B C bins R Q]` float32, R x Q cells."""

    def __init__(self, bins, cell, window):
        super().__init__()
        self.bins, self.cell, self.window = bins, cell, window
        sobel = torch.tensor([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]])
        self.register_buffer("across", sobel.repeat(3, 1, 1, 1))
        self.register_buffer("down", sobel.T.repeat(3, 1, 1, 1))
        if window:
            self.register_buffer("gauss", torch.tensor(hog.gaussian_window(window)))

    @torch.autocast("cpu", enabled=False)
    @torch.autocast("cuda", enabled=False)
    def forward(self, image):
        x = F.pad(image.float(), (1, 1, 1, 1), mode="reflect")
        gx, gy = (F.conv2d(x, w, groups=3) for w in (self.across, self.down))
        norm = torch.stack([gx, gy], -1).norm(dim=-1)
        phase = torch.atan2(gx, gy) / math.pi * self.bins
        if self.window:
            tiles = [side // self.window for side in image.shape[2:]]
            norm = norm * self.gauss.repeat(*tiles)
        b, c, height, width = norm.shape
        out = norm.new_zeros(b, c, self.bins, height, width)
        index = phase[:, :, None].floor().long() % self.bins
        out.scatter_add_(2, index, norm[:, :, None])
        out = out.unfold(3, self.cell, self.cell).unfold(4, self.cell, self.cell)
        return F.normalize(out.sum((-1, -2)), p=2, dim=2)
