"""Errors a user can mend."""


class UserError(ValueError):
    """A call, file or setting is wrong in a way its user can mend.

    The message is one line: it names the flag, file or field, quotes the
    value and says what would be right.
    """
