"""Images: bytes to pixels, in processes of their own, so that a hostile one costs only itself.

decoders     where images are decoded: in processes of their own, or in threads of this one
fork_server  the process that workers are forked from, and the service's handles on both
images       bytes to the pixels a tower reads, and to what a gallery keeps of an image
media_types  the media type of an image by its first bytes, for the formats that `encoders.images` decodes
protocol     what passes between the service and its workers: a header in JSON, then raw bytes
worker       `python -m service.decoding.worker`
worker_pool  workers: jobs in, answers out, the dead reaped and replaced
"""
