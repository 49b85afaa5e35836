"""Readers of files that a stranger may have written, each bounded in what it reads and allocates."""
