"""A provider of accounts in a database, found by the operator's own queries."""
