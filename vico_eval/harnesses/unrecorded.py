"""Notes about what is unknown of runs started by other programs."""


def what_is_unknown(toolkit: str) -> str:
    """Return the note for readers of such a run's row."""
    return (
        f"started by {toolkit} itself, so all that is known of it is what that wrote. Without token accounts the row "
        "has no ratio of compressed tiles, no share of visual tokens and no place in the picture of retention; "
        "checkpoint digest, dtype, attention, prompts and tile limits can't be compared with other rows'."
    )
