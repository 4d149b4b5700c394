"""Images and texts of one request embedded together, each kind as one batch."""

import asyncio
from collections.abc import Sequence

from encoders.encoder import Encoder
from service.decoding.images import ImageSource
from service.device.embedding import Embedder, TextItem
from service.device.tickets import Outcome
from service.watch.telemetry import Timings


async def embed_mixed(
    embedder: Embedder,
    encoder: Encoder,
    inputs: Sequence[ImageSource | TextItem],
    *,
    deadline: float,
    timings: Timings,
) -> list[Outcome]:
    """An outcome for each input, in order; texts are encoded while images are decoded. Raises QueueFull."""
    texts = [(index, item) for index, item in enumerate(inputs) if isinstance(item, TextItem)]
    images = [(index, item) for index, item in enumerate(inputs) if not isinstance(item, TextItem)]
    kinds = (
        embedder.images(encoder, [item for _, item in images], deadline=deadline, timings=timings),
        embedder.texts(encoder, [item for _, item in texts], deadline=deadline, timings=timings),
    )
    tasks = [asyncio.ensure_future(kind) for kind in kinds]
    try:
        found = await asyncio.gather(*tasks)
    finally:
        for task in tasks:  # where one kind was refused, nobody waits for the other
            task.cancel()
    places = [index for index, _ in (*images, *texts)]
    outcomes = dict(zip(places, (*found[0], *found[1]), strict=True))
    return [outcomes[index] for index in range(len(inputs))]
