"""The one exception for what the user can put right; errors for want of memory; text that
a terminal may have."""

import re

# Behind a message of what is in a store, or should be.
CLOUD = (
    "; gs:// needs `pip install gcsfs`, and where no machine of the cloud's own vouches "
    "for you `gcloud auth application-default login`"
)


class UserError(Exception):
    """Bad input. Its text says what is wrong and what to change; `main` prints it
    without a traceback and exits with status 1."""


# What moves a terminal's cursor, colours or title, turns the direction of writing, or is a
# byte of a file name that no encoding explains.
UNPRINTABLE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text):
    """Text with such characters of a file's name written out, as `\\x1b`."""
    return UNPRINTABLE.sub(lambda match: ascii(match[0])[1:-1], text)


def check_choice(name, value, choices):
    """Raises UserError unless `value` is one of `choices`."""
    if value not in choices:
        raise UserError(f"{name}: {value!r} is not one of {', '.join(choices)}")


def is_exhausted(error):
    """Whether an exception, or what it came of, is for want of memory."""
    while error is not None:
        text = str(error)
        if isinstance(error, MemoryError) or "std::bad_alloc" in text:
            return True
        if "RESOURCE_EXHAUSTED" in text and "emory" in text:
            return True
        error = error.__cause__ or error.__context__
    return False
