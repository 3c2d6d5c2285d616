"""What is added around a provider, or over several: one class each, of the same interface."""
