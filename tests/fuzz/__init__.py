"""Random requests: whole conversations against a model, and a storm of odd bytes.

``FUZZ_REQUESTS`` is how many requests the storm has (6,000; 100,000 is the long form), and
``FUZZ_SEED`` repeats the random choices of an earlier run. ``FUZZ_CONVERSATIONS`` is how many
conversations are tried (150).
"""
