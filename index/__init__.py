"""Turns a gallery and an encoder's bundle into a release, and reads releases for whoever searches them.

Knows the `encoders`; neither training nor HTTP.
"""

from encoders.extras import require_extra

require_extra("index", packages=("faiss", "pyarrow"))
