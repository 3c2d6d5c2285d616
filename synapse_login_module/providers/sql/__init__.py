"""Accounts in a database that the operator writes the queries for."""
