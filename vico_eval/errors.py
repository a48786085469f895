"""Errors that a user can act on: the command line shows them without a traceback.

A message says what happened, what was expected and what to do, with the values and the place (file, document, tensor).
"""


class UserError(Exception):
    """Something the user gave can't be used; the message is all that they need."""


class ConfigError(UserError):
    """A setting, method, argument or model card is unknown or outside its range."""


class CheckpointError(UserError):
    """A checkpoint is missing, incomplete or of another architecture; names the tensor or the file."""


class MediaError(UserError):
    """An image or a video can't be read; names the file."""


class DocumentError(UserError):
    """A document could not be answered; names task and document."""


class ReportError(UserError):
    """A run can't be counted, or a table can't be made from the runs at hand."""


class OutputError(UserError):
    """A file or folder can't be written."""
