"""One step of training: a batch is drawn, embedded, compared with itself.

mixture           which images and captions make up a batch, from sources by weight
hard_negatives    batches of near neighbours
cutmix            boxes of one image in another, and what that does to the targets
contrast          similarities across micro-batches and ranks
    loss              cross entropy or sigmoid over them
teacher           a stronger bundle's similarities as targets
step              forward, backward, update
"""
