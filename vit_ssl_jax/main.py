"""python -m vit_ssl_jax.main --config=configs/ijepa_vitl.py --workdir=DIR"""

from vit_ssl_jax import arguments, command


def execute(config, workdir):
    """Trains, or goes on with a stopped run."""
    arguments.check_training(config)
    if config.data.name == "folder":
        from vit_ssl_jax.data import folder

        folder.check_directory(config.data.dir)
    from vit_ssl_jax import train  # after flags and paths: a typo answers at once

    train.train(config, workdir)


if __name__ == "__main__":
    command.start(
        execute,
        several=True,
        config="Recipe, configs/NAME.py.",
        workdir="Folder of the run; resumed if not new.",
    )
