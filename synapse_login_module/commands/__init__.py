"""The operator's commands, one module for each group.

Only this folder imports click. Exit statuses: 0 for success, 1 for failure, 2 for wrong arguments,
130 after an interrupt.
"""
