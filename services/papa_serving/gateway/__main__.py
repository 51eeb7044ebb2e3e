"""`python -m papa_serving.gateway` runs the gateway with the configuration of the file and the environment."""

import sys

from papa_serving.gateway.main import main
from papa_serving.settings import Settings

sys.exit(main(Settings()))
