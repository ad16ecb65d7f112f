"""Numbers that the docs may quote: native and peer in one run, on the same files."""
