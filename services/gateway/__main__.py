"""`python -m services.gateway`: the gateway with the configuration of file and environment."""

import sys

from services.gateway.main import main
from services.settings import Settings

sys.exit(main(Settings()))
