"""Faults on purpose: the server is killed, stopped and cut off, and nothing acknowledged is lost.

``CHAOS_KILLS`` is how often it is killed (20; 100 is the long form, which prints its figures); all
other faults come a fifth as often. ``CHAOS_SEED`` repeats the random choices of an earlier run.
"""
