"""python -m vit_ssl_jax.replay WORKDIR/capsules/step-N.json

Makes a step that wasn't finite, or was a spike, again on one CPU device, and names the
operation it began with, its shapes and its source line.
"""

import argparse
import os
import sys

from vit_ssl_jax import arguments
from vit_ssl_jax.errors import UserError, printable


def main():
    """Runs the command."""
    shape = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="vit_ssl_jax.replay", description=__doc__, formatter_class=shape
    )
    parser.add_argument("capsule", help="WORKDIR/capsules/step-N.json")
    args = parser.parse_args()
    os.environ["JAX_PLATFORMS"] = "cpu"
    try:
        arguments.check_capsule(args.capsule)
        from vit_ssl_jax import host, replay

        host.prepare()
        replay.replay(args.capsule, say=lambda text: print(printable(text), flush=True))
    except UserError as error:
        sys.exit(f"error: {printable(str(error))}")


if __name__ == "__main__":
    main()
