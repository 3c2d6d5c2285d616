"""Who may try how often."""
