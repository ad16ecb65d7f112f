"""The command line: one file per group of commands, all thin."""

from vitriflow.cli.app import app, main

__all__ = ["app", "main"]
