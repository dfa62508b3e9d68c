"""Architecture selection over an injected measurement: which children of a trained supernet are worth having.

`rounds.search` repeats *propose, measure, record*; `coarse_to_fine`, `evolution` and `random_search` say what to
propose. Nothing here knows a tensor, an image or a device.
"""

#: Children that a search for one budget measures, unless told otherwise.
ON_DEMAND_CHILDREN = 64
