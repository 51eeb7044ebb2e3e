"""What the rooms know of one another: frozen messages, abstract bases, errors. No torch, no grpc, no redis, no ray."""
