"""`python -m papa_serving.gateway`: the gateway with the configuration of file and environment."""

import sys

from papa_serving.gateway.main import main
from papa_serving.settings import Settings

sys.exit(main(Settings()))
