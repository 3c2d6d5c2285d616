"""Links between provider accounts and Matrix accounts, and the end of sessions of gone accounts."""
