"""Goes through all that the service needs, for real, and says what is wrong and what to do."""
