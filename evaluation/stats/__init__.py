"""Statistics over clips: values of rows by task, paired differences, what many comparisons cost, ranks.

The interval and the test themselves are `freemask.statistics`, which codebooks share.
"""
