"""What stands between the accounts and the providers: a guard around each, a chain over all."""
