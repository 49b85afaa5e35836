"""Private names of dependencies, a file each, so that a release that changes one is met in one place."""
