"""Turns pairs of images and captions into a bundle, and measures how well it retrieves what it never saw.

Knows the `encoders`; neither the index nor the service.
"""

from encoders.extras import require_extra

require_extra("training", packages=("pyarrow", "ijson", "matplotlib", "tensorboard"))
