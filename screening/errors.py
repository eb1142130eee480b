"""The one kind of error a person using the product can cause."""

from __future__ import annotations


class UserError(Exception):
    """Something the user can put right.

    The message is one clear sentence: what is wrong, where, and what to do. The command line
    prints it alone and exits with a status other than 0; a traceback never reaches the user.
    """
