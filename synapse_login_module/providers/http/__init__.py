"""A provider of accounts that an HTTP service checks."""
