"""``python -m vitriflow.cli``: the same as the ``vitriflow`` command."""

from vitriflow.cli.app import main

if __name__ == "__main__":  # worker processes import this module again
    main()
