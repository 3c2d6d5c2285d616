"""Links of accounts, and the end of the sessions of gone accounts."""
