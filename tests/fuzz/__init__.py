"""Random requests: whole conversations against a model, and a storm of random bytes.

``FUZZ_REQUESTS`` is the number of requests of the storm (6,000; 100,000 for the long form).
``FUZZ_SEED`` repeats the random choices of an earlier run. ``FUZZ_CONVERSATIONS`` is the number of
conversations (150).
"""
