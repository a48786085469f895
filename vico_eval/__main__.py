"""`python -m vico_eval`: the command line, where its program is not on the path."""

from vico_eval.cli import main

if __name__ == "__main__":
    main()
