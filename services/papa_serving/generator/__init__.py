"""The engine that draws items for many users at once, and the deployment around it."""
