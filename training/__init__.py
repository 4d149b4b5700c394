"""Turns pairs of images and captions into a bundle, and measures how well it retrieves what it never saw.

    the data       pairs, readers/, leakage, captions
    what is made   recipe, recipes/, start, card
    the towers     stems (where one is cut), learner (what a phase trains), products, optimiser
    its views      augment, presets, sheet (what they do to your pictures)      python -m training augment
    a step         mixture, hard_negatives, views, kept_texts, activations, feeds, cutmix, teacher
                   ─► step, contrast, loss
    the run        fit, prepare, beginning, validate, forgetting, checkpoint, progress, processes      … fit
    after it       blend, blend_measured                                            … interpolate, soup
    a domain       adapt/                                                           … adapt
    the commands   console (errors told, stages shown), each *_command
    relevance      calibrate_run ─► calibrate, _absent, _draws, _logistic, _figures, _report    … calibrate
    the proof      embedding, ranks, metrics, collapse, evaluate, report, charts    … evaluate
    under shift    corruptions, text_corruptions, light, shift, input_sizes ─► hits, compare, comparison_tables

Knows the `encoders`; neither the index nor the service.
"""

from encoders.extras import require_extra

require_extra("training", packages=("pyarrow", "ijson", "matplotlib", "tensorboard"))
