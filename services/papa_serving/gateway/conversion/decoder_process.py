"""`python -m papa_serving.gateway.conversion.decoder_process SECONDS PIXELS`: decodes what arrives on standard input.

A decoder runs in C on a stranger's bytes and cannot be stopped in a thread. Here the kernel ends the process when one
picture has taken SECONDS of CPU. A flaw in a decoder cannot reach the gateway's memory or its secrets, which are not in
this process's environment.

A request is a header and the picture, the answer a header and the packed sample, or why the picture is refused.
"""

from __future__ import annotations

import io
import resource
import signal
import struct
import sys
import time
from typing import BinaryIO

from PIL import Image

from papa_serving.gateway.conversion.pictures import FORMATS, BadPicture, decode

REQUEST = struct.Struct("!IIIII")
"""Bytes of the picture, bytes of the prompt, channels, height, width."""
ANSWER = struct.Struct("!?dI")
"""Whether the picture was decoded, the seconds of CPU that it took, the bytes that follow."""
READY = b"+"
"""The message of the process once it is ready for requests."""
MEMORY, MEMORY_PER_PIXEL = 2**29 + 2**28, 64
"""Bytes of the process's address space. Python and Pillow take about a quarter of the first; of the second a 16-bit
grey picture takes most: 8 bytes of each value, a few times."""


def serve(requests: BinaryIO, answers: BinaryIO, seconds: float, max_pixels: int) -> None:
    """Answers requests until the end of the input."""
    while header := requests.read(REQUEST.size):
        length, prompt_length, channels, height, width = REQUEST.unpack(header)
        data, prompt = requests.read(length), requests.read(prompt_length).decode()
        started = time.process_time()
        # Counts this process's CPU time alone; its signal ends the process, also in the middle of C code.
        signal.setitimer(signal.ITIMER_PROF, seconds)
        try:
            good, answer = True, decode(data, (channels, height, width), max_pixels, prompt)
        except BadPicture as error:
            good, answer = False, str(error).encode()
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0.0)
        answers.write(ANSWER.pack(good, time.process_time() - started, len(answer)) + answer)
        answers.flush()


def main() -> None:
    """Limits this process, says that it is ready, and serves."""
    # The gateway decides when it ends: Ctrl-C reaches every process of the terminal.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    seconds, max_pixels = float(sys.argv[1]), int(sys.argv[2])
    memory = MEMORY + MEMORY_PER_PIXEL * max_pixels
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _warm_up()
    sys.stdout.buffer.write(READY)
    sys.stdout.buffer.flush()
    serve(sys.stdin.buffer, sys.stdout.buffer, seconds, max_pixels)


def _warm_up() -> None:
    """Loads the decoders of all formats, which no picture is to be charged for."""
    for kind in FORMATS:
        data = io.BytesIO()
        Image.new("L", (1, 1)).save(data, kind)
        decode(data.getvalue(), (1, 1, 1), 1)


if __name__ == "__main__":
    main()
