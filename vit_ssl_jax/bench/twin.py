"""A train step in PyTorch: forward, backward, AdamW, and the teacher's average."""

import torch

from vit_ssl_jax.bench import torch_methods
from vit_ssl_jax.errors import UserError


def check(config):
    """Raises UserError for a config whose step hasn't been written in PyTorch."""
    name, known = config.method.name, torch_methods.METHODS
    if name not in known:
        raise UserError(
            f"--twin: config.method.name={name} has no PyTorch step; those that have: "
            f"{', '.join(known)}"
        )
    if config.optim.name != "adamw":
        raise UserError(f"--twin: config.optim.name={config.optim.name} is not adamw")
    for key, value in (("accum", config.accum), ("method.mega", _mega(config))):
        if value > 1:
            raise UserError(f"--twin: config.{key}={value} isn't in PyTorch's step")


def _mega(config):
    return config.method.mega if config.method.name == "relvit" else 0


def make_step(config, device, *, compiled):
    """Makes a function that does one train step and returns when it is done.

    `device` is "cpu" or "cuda"; `compiled`: by torch.compile. Matmuls are in
    `config.vit.dtype`: float32, or bfloat16 by autocast. Weights are random.
    """
    torch.manual_seed(config.seed)
    module = torch_methods.METHODS[config.method.name](config).to(device).train()
    shape = config.batch_size, 3, *config.data.size
    image = torch.randn(shape, device=device)
    trained = [p for p in module.parameters() if p.requires_grad]
    c = config.optim
    optimizer = torch.optim.AdamW(
        trained, lr=1e-4, betas=(c.b1, c.b2), eps=c.eps, weight_decay=c.wd, fused=True
    )
    forward = torch.compile(module) if compiled else module
    low = config.vit.dtype == "bfloat16"
    after = getattr(module, "after", lambda: None)

    def train():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled=low):
            loss = forward(image)
        loss.backward()
        if c.clip:
            torch.nn.utils.clip_grad_norm_(trained, c.clip)
        optimizer.step()
        after()
        if device == "cuda":
            torch.cuda.synchronize()

    return train
