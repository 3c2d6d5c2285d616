"""What a token is, and what a presented one means."""
