"""What the commands do; imported when a command runs, so that `--help` needs none of it."""
