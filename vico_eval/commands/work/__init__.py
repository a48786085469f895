"""The implementation of the commands, imported only when a command runs, so that `--help` is fast."""
