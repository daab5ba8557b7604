"""The one error that users see.

Everything that is wrong with what the user gave (a model that does not exist, a broken header, an
unknown device) is a `BadInput`. Surfaces print its message as one line and exit with status 2.
"""


class BadInput(Exception):
    """Something the user gave cannot be used.

    Parameters
    ----------
    message
        One line: what is wrong, and where.
    hint
        One line: what to do about it. Empty if there is nothing useful to say.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        self.message = " ".join(message.split())
        self.hint = " ".join(hint.split())
        super().__init__(f"{self.message} ({self.hint})" if self.hint else self.message)
