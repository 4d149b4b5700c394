"""Turns pairs of images and captions into a bundle, and measures how well it retrieves what it never saw.

    the data       pairs, readers/, leakage, captions
    what is made   recipe, recipes/, start, card
    the towers     stems (where one is cut), learner (what a phase trains), products, optimiser
    a step         mixture, augment, views, kept_texts, activations, feeds, cutmix ─► contrast, loss
    the run        fit, prepare, validate, checkpoint, progress, processes      python -m training fit
    the proof      embedding, ranks, metrics, collapse, evaluate, report, charts    … evaluate

Knows the `encoders`; neither the index nor the service.
"""

from encoders.extras import require_extra

require_extra("training", packages=("pyarrow", "ijson", "matplotlib", "tensorboard"))
