"""The public gRPC server. It authenticates, validates and converts, appends feedback, and proxies generation."""

import os

# gRPC's core writes plain lines to standard error, where only JSON belongs; what they say arrives as exceptions too. It
# reads this variable when it is first imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
