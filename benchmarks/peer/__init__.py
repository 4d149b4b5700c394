"""Side by side with another server, on the same weights and the same requests.

    environment   the peer's own virtual environment, made once, and the model that both serve
    clip_folder   that model: a ViT-B/32 CLIP with random weights; runs in the peer's environment
    reference     what transformers itself makes of the inputs in fp32
    race          loads on both servers in turns, and how far vectors lie from the reference
    __main__      `python -m benchmarks.peer`

The peer is infinity.
"""
