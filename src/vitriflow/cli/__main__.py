"""``python -m vitriflow.cli``: the same as the ``vitriflow`` command."""

from vitriflow.cli.app import main

main()
