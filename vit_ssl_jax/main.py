"""python -m vit_ssl_jax.main --config=configs/ijepa_vitl.py --workdir=DIR"""

from vit_ssl_jax import command


def run(config, workdir):
    """Trains, or goes on."""
    from vit_ssl_jax import train  # after the flags: a typo answers at once

    train.train(config, workdir)


if __name__ == "__main__":
    command.start(
        run,
        several=True,
        config="Recipe, configs/NAME.py.",
        workdir="Folder of the run; resumed if not new.",
    )
