"""The one exception for what the user can put right, errors for want of memory or storage,
and text that a terminal may have."""

import errno
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


# What a storage fails with; what to do about it.
STORAGE = {
    errno.ENOSPC: "make room there (bytes: df -h, files: df -i), or give another folder",
    errno.EDQUOT: "make room in the quota, or give another folder",
    errno.EROFS: "give a folder that may be written to",
    errno.EACCES: "see that you have the right to it, or give another path",
    errno.EISDIR: "it is a folder where a file has to be: move it away",
    errno.ENOTDIR: "it is a file where a folder has to be: move it away",
    errno.EIO: "see that the disk or the network mount is there and whole",
    errno.ESTALE: "see that the network mount is there again",
    errno.EMFILE: "raise the limit of open files: ulimit -n 65536",
}


def explain_error(error):
    """The one line that an exception ends a command with; "" is for a traceback."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.errno in STORAGE:
        what = f"{error.strerror}: {error.filename or 'a file'}"
        return f"{what}; {STORAGE[error.errno]}. The same command goes on then"
    return ""


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
