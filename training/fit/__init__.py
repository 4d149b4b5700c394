"""A training run: a recipe in, a bundle out; killed at any moment, it goes on to the same weights.

    recipe        all that decides what a run makes                     start      what it starts from
    prepare       recipe to sets, towers and mixture, with the guard-rails
    beginning     what is known before the first step
    fit           the loop over phases, epochs and steps
    job           all of it as one process does it
    contact_sheet what a recipe's augmentations make of images
    banks         a query bank in place of that of the bundle it starts from
    validate      retrieval on held-out pairs                           forgetting   what fell meanwhile
    checkpoint    atomic, resumable                                     progress   bar, JSONL, TensorBoard
    processes     torchrun's ranks

A step is in step/, what it gets of images and captions in views/, the towers it trains in towers/.
"""
