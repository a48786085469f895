"""Ways of saving visual tokens: one file a method, registered under its name.

A file added here, or an entry point in the group `vico_eval.methods` of another package, is all that a new method
takes: it is then listed by `vico-eval methods` and runs in lmms-eval as `<name>_internvl`.
"""
