"""Published models to Bundles: open_clip's (tags, hub, folders, checkpoints) and transformers' CLIP folders.

Only the command imports this package: an Encoder needs a bundle and nothing of where it came from.
"""
