"""The error tree: one base to catch, one exit code a kind.

    BigNASError                 1   a bug, or a cause without a kind of its own
    ├── UsageError              2   the request itself is wrong
    │   ├── SpaceError              a child that is not in its search space
    │   ├── BudgetError             a budget that does not parse
    │   └── RecipeError             a recipe with a wrong key or value
    ├── NotFoundError           3   no such name
    │   └── NothingFitsError        no slice within the budget
    ├── IntegrityError          4   a file is not what the registry says, or unsafe
    ├── NetworkError            5   the Hub cannot be reached, fails, or answers nonsense
    ├── AuthError               6   the Hub wants a token, or this one may not do that
    ├── LocalIOError            7   a folder or file of this machine cannot be used
    ├── TrainingStoppedError    8   the loss is not a number
    ├── QualityError            9   a result missed its gate; nothing was published
    └── PreemptedError         75   stopped on request; run again to resume

Every message says what is wrong, where, what is allowed, and what to do.
"""

from __future__ import annotations

from collections.abc import Iterable


class BigNASError(Exception):
    """Base of every error this package raises on purpose."""

    exit_code = 1


class UsageError(BigNASError, ValueError):
    """The request is wrong: a value, a key, a combination."""

    exit_code = 2


class SpaceError(UsageError):
    """A child spec lies outside its search space."""


class BudgetError(UsageError):
    """A budget string does not follow the grammar."""


class RecipeError(UsageError):
    """A recipe has an unknown key or a value that is not allowed."""


class NotFoundError(BigNASError, LookupError):
    """No slice, family, space or file has this name."""

    exit_code = 3


class NothingFitsError(NotFoundError):
    """No slice meets the budget."""


class IntegrityError(BigNASError):
    """A file is damaged, truncated, unsafe, or not the one that was recorded."""

    exit_code = 4


class NetworkError(BigNASError):
    """The Hub cannot be reached, fails, changed meanwhile, or answers what cannot be understood."""

    exit_code = 5


class AuthError(BigNASError):
    """The Hub wants a token, does not know the one given, or does not allow it this."""

    exit_code = 6


class LocalIOError(BigNASError, OSError):
    """A file or folder on this machine cannot be read or written."""

    exit_code = 7


class TrainingStoppedError(BigNASError):
    """Training stopped itself because the loss is no longer a number."""

    exit_code = 8


class QualityError(BigNASError):
    """A result missed its gate, so it was not given its final name."""

    exit_code = 9


class PreemptedError(BigNASError):
    """Training was asked to stop; the checkpoint is complete and resumable."""

    exit_code = 75


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint such as ``did you mean 'bignas-s'?``, or list what there is.

    Args:
        name: what was asked for.
        known: the names that exist.

    Returns:
        A sentence to end an error message with.
    """
    names = sorted(known)
    begun = [known for known in names if name and known.startswith(name)]
    import difflib  # on errors alone

    close = begun or difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if close:
        return f"Did you mean '{close[0]}'?"
    return f"Known: {', '.join(names) or 'none'}."


def reason(error: Exception, most: int = 300) -> str:
    """Return why a file's data could not be used, in the words of one who reads the file: no names of Python's classes.

    Args:
        error: what reading them raised.
        most: characters.
    """
    text = str(error)[:most]
    if isinstance(error, KeyError):
        return f"key {text} is missing"
    if isinstance(error, (TypeError, AttributeError)):
        return f"a value is of the wrong kind: {text}"
    return text
