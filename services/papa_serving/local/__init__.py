"""The whole service on one machine: embedded Redis, local Ray, the Serve applications and the gateway process."""
