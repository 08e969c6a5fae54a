"""The cache of compiled programs, which a command sets before its first compilation."""

import os
import pathlib

import jax

REQUEST = "/jax/compilation_cache/compile_requests_use_cache"
HIT = "/jax/compilation_cache/cache_hits"
# Seconds. A train step takes longer to compile, what surrounds it doesn't, so that the
# folder holds a few large files and not thousands of small ones.
WORTH_KEEPING = 5.0


def use_cache():
    """Keeps compiled programs from run to run, by jax's persistent cache.

    On TPU and GPU, in `vit_ssl_jax/xla` of the user's cache folder. A folder named by
    JAX_COMPILATION_CACHE_DIR is used instead, and then on a CPU too, with jax's own
    thresholds. A CPU has none by default: its entries are machine code for one type of
    CPU, which others, and some of the same type, refuse or die of (jax-ml/jax#38445),
    and a CPU compiles the small models that it can train in seconds.
    """
    if jax.config.jax_compilation_cache_dir or jax.default_backend() == "cpu":
        return
    jax.config.update("jax_compilation_cache_dir", str(cache_folder("xla")))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        name = "jax_persistent_cache_min_compile_time_secs"
        jax.config.update(name, WORTH_KEEPING)


def cache_folder(name):
    """Our own `name` in the user's cache folder: `xla` for compiled programs."""
    root = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(root) / "vit_ssl_jax" / name


class CacheWatch:
    """Hears whether the first program compiled inside came from the cache.

    `with CacheWatch() as watch: ...`, then `watch.outcome`: "hit", "miss", or "" where
    the cache is off or nothing was compiled.
    """

    def __init__(self):
        self._programs, self._over = [], False

    def __enter__(self):
        jax.monitoring.register_event_listener(self._hear)
        return self

    def __exit__(self, *error):
        self._over = True
        if hasattr(jax.monitoring, "unregister_event_listener"):  # jax 0.8 on
            jax.monitoring.unregister_event_listener(self._hear)

    def _hear(self, event, **_):
        if self._over:
            return
        if event == REQUEST and jax.config.jax_compilation_cache_dir:
            self._programs.append("miss")
        elif event == HIT:
            self._programs[-1] = "hit"

    @property
    def outcome(self):
        """Whether the first program came from the cache: "hit", "miss" or ""."""
        return self._programs[0] if self._programs else ""

    @property
    def remark(self):
        """Words on `outcome` to put behind a line; "" where there is nothing to say."""
        return f" (compilation cache: {self.outcome})" if self.outcome else ""
