"""What a user did that cannot work, in one line that names the value and the remedy."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input. The command line prints it as one line and exits with code 2.

    Raise it where the value is known and say both what is wrong and what to do; library callers catch it
    like any exception.
    """


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint for a misspelt name: `" (did you mean 'width'?)"`, or an empty string if nothing is close."""
    folded = {each.lower(): each for each in known}
    matches = difflib.get_close_matches(word.lower(), folded, n=1, cutoff=0.5)
    return f" (did you mean '{folded[matches[0]]}'?)" if matches else ""
