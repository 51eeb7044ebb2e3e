"""The interfaces between rooms: frozen messages, abstract bases, errors. No torch, no grpc, no redis, no ray."""
