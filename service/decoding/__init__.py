"""Images: bytes to pixels, in processes of their own, so that a hostile one costs only itself.

    crew         A crew of decoding processes: jobs in, answers out, the dead replaced
    media_types  the media type of an image by its first bytes, for the formats that `encoders.images` decodes
    images     bytes to the pixels a tower reads, and to what a gallery keeps of an image
    pool         where images are decoded: in processes of their own, or in threads of this one
    processes    the service's handles on its nursery and on the workers that it forks
    wire         what passes between the service and its decoding processes: a header in JSON, then raw bytes
    worker       `python -m service.decoding.worker`

Knows nothing of HTTP, towers or batches.
"""
