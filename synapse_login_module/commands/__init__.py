"""What an operator does beside running the server: one module for each group of commands.

Nothing else imports click. A command exits with 0 when it is done, 1 when it cannot be done, 2 when
it was not understood, and 130 when it was interrupted.
"""
