"""The one exception that reaches a person: what is wrong, where, and what to do."""


class UserError(Exception):
    """Bad input or settings. The CLI prints the message on one line and exits with status 2."""
