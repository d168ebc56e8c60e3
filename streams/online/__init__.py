"""The features of a key as they are now, for other services: read from Redis, beside the workers that write it."""
