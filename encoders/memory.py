"""Memory that is free inside this process, back to the system."""

import ctypes


def give_memory_back() -> None:
    """Have the C library return what it keeps of freed memory, where it can (glibc's malloc_trim(3)).

    After towers were loaded or compiled that is some 80 MB (LOG 2026-11-30), which it keeps otherwise until the
    same thread asks for as much again.
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):  # another C library
        return
    trim(ctypes.c_size_t(0))
