"""Two towers as training sees them: what a phase trains, what stays frozen, at which rate.

learner      the towers with the parts of a phase unfrozen
stems        an image tower cut in two: a frozen stem, whose output is kept, and the tail that is trained
products     1x1 convolutions as bf16 products
optimiser    rates, decay and schedule by tower and depth
"""
