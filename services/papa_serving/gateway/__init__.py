"""The public gRPC server: distrust, convert, append; generation is passed on to the engine. No torch."""

import os

# What gRPC's core has to say arrives as exceptions too, and its own lines on standard error are not JSON. It reads this
# when it is first imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
