"""Our models from the numbers of a golden case."""

from vit_ssl_jax.models import decoder, layers, vit


def style(norm_eps, init):
    """The references' arithmetic: float32, exact GELU. `init` draws, never compares."""
    return layers.Style(
        dtype="float32",
        norm_eps=norm_eps,
        gelu="exact",
        init=init,
        remat="none",
        unroll=1,
    )


def encoder(*, side, patch, width, hidden, depth, heads, posemb, cls, norm, style):
    """A ViT on a square grid of `side` patches."""
    return vit.ViT(
        grid=(side, side),
        patch=patch,
        depth=depth,
        width=width,
        hidden=hidden,
        heads=heads,
        posemb=posemb,
        cls=cls,
        final_norm=norm,
        droppath=0.0,
        dropout=0.0,
        style=style,
    )


def narrow(encoder, *, width, hidden, depth, heads, features):
    """A decoder or predictor for an encoder."""
    return decoder.Decoder(
        grid=encoder.grid,
        width=width,
        hidden=hidden,
        depth=depth,
        heads=heads,
        features=features,
        cls=encoder.cls,
        style=encoder.style,
    )


def channels_last(image):
    """`[B C H W] -> [B H W C]`."""
    return image.transpose(0, 2, 3, 1)


def channels_first(image):
    """`[B H W C] -> [B C H W]`."""
    return image.transpose(0, 3, 1, 2)
