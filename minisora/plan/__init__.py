"""What will it cost: any video model, any clip, any cards. Pure functions of numbers; no module here imports torch.

subject     a model as the planner sees it: by name, by size, or from a config of ours
blocks      what a pass and a backward pass keep of a block, and what a decoder holds
question    a clip, cards, a layout: checked, with the nearest that would do
spending    the arithmetic: FLOPs, bytes, seconds, dollars, without branches
held_out    what the method is off by on models that it has not seen: the intervals
answer      numbers with where they come from, as a table and JSON
remedies    what fits if it does not, and the cheapest way under a limit of time
"""
