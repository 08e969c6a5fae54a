"""The one exception for what the user can put right."""

# Behind a message of what is in a store, or should be.
CLOUD = (
    "; gs:// needs `pip install gcsfs`, and where no machine of the cloud's own vouches "
    "for you `gcloud auth application-default login`"
)


class UserError(Exception):
    """Bad input. Its text says what is wrong and what to change; `main` prints it
    without a traceback and exits with status 1."""
