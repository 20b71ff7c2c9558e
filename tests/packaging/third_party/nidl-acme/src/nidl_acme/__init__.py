"""A stranger's plugin: one likelihood, one encoder."""
