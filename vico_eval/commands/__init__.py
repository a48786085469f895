"""What the subcommands of `vico-eval` do; imported only when one runs."""
