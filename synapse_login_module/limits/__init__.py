"""Rate limits: who may try how often."""
