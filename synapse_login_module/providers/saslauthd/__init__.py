"""A provider whose passwords saslauthd checks."""
