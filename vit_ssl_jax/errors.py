"""The one exception for what the user can put right."""


class UserError(Exception):
    """Bad input. Its text says what is wrong and what to change; `main` prints it
    without a traceback and exits with status 1."""
